"""Laws of helpers.graphs: separation against networkx on all small graphs, joints, dependence, pictures."""

from itertools import combinations

import networkx as nx
import pytest
import torch

from helpers import graphs

COLLIDER = nx.DiGraph([("a", "c"), ("b", "c"), ("c", "d")])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_dag(nodes, seed):
    """A DAG along a random order, each edge with probability one half."""
    g = generator(seed)
    order = [list(nodes)[i] for i in torch.randperm(len(nodes), generator=g)]
    G = nx.DiGraph()
    G.add_nodes_from(nodes)
    G.add_edges_from(e for e in combinations(order, 2) if torch.rand((), generator=g) < 0.5)
    return G


@pytest.mark.parametrize(("n", "count"), [(1, 1), (2, 3), (3, 25), (4, 543)])
def test_number_of_dags(n, count):
    found = list(graphs.all_dags(range(n)))
    assert len(found) == len({frozenset(G.edges) for G in found}) == count
    assert all(nx.is_directed_acyclic_graph(G) and len(G) == n for G in found)


@pytest.mark.parametrize(("n", "count"), [(2, 1), (3, 6), (4, 24), (5, 80)])
def test_number_of_statements(n, count):
    found = list(graphs.statements(range(n)))
    assert len(found) == len({(frozenset((x, y)), z) for x, y, z in found}) == count
    assert all(x not in z and y not in z and x != y for x, y, z in found)


def test_active_trails_are_d_connection_on_all_dags_of_four_nodes():
    for G in graphs.all_dags("abcd"):
        for x, y, z in graphs.statements(G):
            assert (not graphs.active_trails(G, x, y, z)) == nx.is_d_separator(G, x, y, z), (G.edges, x, y, z)


@pytest.mark.parametrize("seed", range(20))
def test_active_trails_are_d_connection_on_random_dags_of_six_nodes(seed):
    G = random_dag("abcdef", seed)
    for x, y, z in graphs.statements(G):
        assert (not graphs.active_trails(G, x, y, z)) == nx.is_d_separator(G, x, y, z)


def test_active_trails_are_connection_without_z_on_all_undirected_graphs_of_four_nodes():
    pairs = list(combinations("abcd", 2))
    for bits in range(2 ** len(pairs)):
        G = nx.Graph()
        G.add_nodes_from("abcd")
        G.add_edges_from(e for k, e in enumerate(pairs) if bits >> k & 1)
        for x, y, z in graphs.statements(G):
            rest = G.subgraph(set(G) - z)
            assert bool(graphs.active_trails(G, x, y, z)) == nx.has_path(rest, x, y)


def test_blocking_names_the_nodes():
    assert graphs.blocking(COLLIDER, ["a", "c", "b"], ()) == ["c"]
    assert graphs.blocking(COLLIDER, ["a", "c", "b"], {"d"}) == []  # a descendant opens the collider
    assert graphs.blocking(COLLIDER, ["a", "c", "d"], {"c", "b"}) == ["c"]
    assert graphs.blocking(nx.Graph(COLLIDER), ["a", "c", "b"], {"c"}) == ["c"]


def test_trails_of_a_square():
    assert sorted(graphs.trails(nx.cycle_graph(4, create_using=nx.DiGraph), 0, 2)) == [[0, 1, 2], [0, 3, 2]]


@pytest.mark.parametrize(("x", "y", "z"), [("a", "a", ()), ("a", "b", {"a"}), ("a", "b", {"b"})])
def test_overlap_is_refused(x, y, z):
    p = graphs.joint(COLLIDER, graphs.random_cpts(COLLIDER, generator()))
    with pytest.raises(ValueError, match="disjoint"):
        graphs.active_trails(COLLIDER, x, y, z)
    with pytest.raises(ValueError, match="disjoint"):
        graphs.dependence(p, COLLIDER, x, y, z)


@pytest.mark.parametrize("draws", [(), (7,), (2, 3)])
@pytest.mark.parametrize("states", [2, 3])
def test_joint_sums_to_one_and_gives_back_its_tables(draws, states):
    G = random_dag("abcde", 3)
    cpts = graphs.random_cpts(G, generator(), draws, states)
    p = graphs.joint(G, cpts)
    nodes = list(G)
    assert p.shape == (*draws, *[states] * 5) and p.dtype == torch.float64
    torch.testing.assert_close(p.flatten(len(draws)).sum(-1), torch.ones(draws, dtype=p.dtype))
    for v in G:
        family = [*G.predecessors(v), v]
        others = [len(draws) + nodes.index(u) for u in G if u not in family]
        kept = [u for u in nodes if u in family]
        marginal = p.sum(others) if others else p
        marginal = marginal.permute(*range(len(draws)), *(len(draws) + kept.index(u) for u in family))
        torch.testing.assert_close(marginal / marginal.sum(-1, keepdim=True), cpts[v])


def test_one_entry_of_the_joint_by_hand():
    cpts = graphs.random_cpts(COLLIDER, generator(1))
    p = graphs.joint(COLLIDER, cpts)  # nodes in the order a, c, b, d
    assert list(COLLIDER) == ["a", "c", "b", "d"]
    by_hand = cpts["a"][1] * cpts["b"][0] * cpts["c"][1, 0, 1] * cpts["d"][1, 0]
    torch.testing.assert_close(p[1, 1, 0, 0], by_hand)


def test_random_tables_are_uniform_on_the_simplex():
    G = nx.DiGraph()
    G.add_node("a")
    p = graphs.random_cpts(G, generator(), (200_000,), states=3)["a"]
    # Dirichlet(1, 1, 1): mean 1/3, variance 1/18; 5 standard errors
    assert (p.mean(0) - 1 / 3).abs().max() < 5 * (1 / 18 / len(p)) ** 0.5
    assert (p.var(0) - 1 / 18).abs().max() < 5 * (1 / 18) * (2 / len(p)) ** 0.5


def test_bad_tables_are_refused():
    cpts = graphs.random_cpts(COLLIDER, generator())
    with pytest.raises(ValueError, match="found none"):
        graphs.joint(COLLIDER, {v: t for v, t in cpts.items() if v != "c"})
    with pytest.raises(ValueError, match="wanted one axis"):
        graphs.joint(COLLIDER, cpts | {"c": cpts["a"]})
    with pytest.raises(ValueError, match="sum to one"):
        graphs.joint(COLLIDER, cpts | {"c": 2 * cpts["c"]})


def test_dependence_is_symmetric_and_vanishes_for_products():
    g = generator()
    a, b, c = (torch.rand(5, 3, generator=g, dtype=torch.float64) for _ in range(3))
    p = torch.einsum("na,nb,nc->nabc", *(t / t.sum(-1, keepdim=True) for t in (a, b, c)))
    assert graphs.dependence(p, "abc", "a", "b").max() < 1e-15
    assert graphs.dependence(p, "abc", "a", ("b", "c")).max() < 1e-15
    q = torch.rand(5, 2, 3, 4, generator=g, dtype=torch.float64)
    q = q / q.sum((1, 2, 3), keepdim=True)
    for z in ((), ("c",)):
        torch.testing.assert_close(graphs.dependence(q, "abc", "a", "b", z), graphs.dependence(q, "abc", "b", "a", z))
        assert graphs.dependence(q, "abc", "a", "b", z).min() > 1e-3


def test_dependence_of_two_coins_by_hand():
    copies = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=torch.float64)  # |1/2 − 1/4|
    assert graphs.dependence(copies, "ab", "a", "b") == 0.25
    xor = torch.zeros(2, 2, 2, dtype=torch.float64)
    for a in (0, 1):
        for b in (0, 1):
            xor[a, b, a ^ b] = 0.25
    assert graphs.dependence(xor, "abc", "a", "b") == 0
    assert graphs.dependence(xor, "abc", "a", "b", ["c"]) == 0.25
    sure = torch.zeros(2, 2, 2, dtype=torch.float64)
    sure[..., 0] = 0.25  # c = 1 never happens: nothing is said there
    assert graphs.dependence(sure, "abc", "a", "b", ["c"]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_separation_means_independence_and_nothing_else_does(seed):
    G = random_dag("abcde", seed)
    p = graphs.joint(G, graphs.random_cpts(G, generator(seed), (200,)))
    for x, y, z in graphs.statements(G):
        gap = graphs.dependence(p, G, x, y, z)
        if graphs.active_trails(G, x, y, z):
            assert (gap > 1e-6).double().mean() > 0.9
        else:
            assert gap.max() < 1e-12


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.Graph])
def test_draw_marks_blocked_and_active_trails(kind):
    G = kind([("a", "c"), ("b", "c"), ("a", "d"), ("d", "b")])
    pos = {"a": (0, 1), "b": (2, 1), "c": (1, 0), "d": (1, 2)}
    ax = graphs.draw(G, pos, notes={"a": "left"}, ends=("a", "b"), given={"d"})
    crosses = {tuple(line.get_xydata()[0]) for line in ax.lines}
    assert crosses == ({pos["d"], pos["c"]} if G.is_directed() else {pos["d"]})
    assert {"a", "b", "c", "d", "left"} <= {t.get_text() for t in ax.texts}
    styles = sorted(p.get_linewidth() for p in ax.patches)
    assert styles == ([2.2] * 4 if G.is_directed() else [2.2, 2.2, 3.6, 3.6])


# Markov networks


@pytest.mark.parametrize("seed", range(5))
def test_gibbs_has_exactly_the_independences_of_its_graph(seed):
    G = nx.Graph(random_dag("abcde", seed))
    p = graphs.gibbs(G, graphs.random_potentials(G, generator(seed), (30,)))
    assert torch.allclose(p.flatten(1).sum(1), torch.ones(30, dtype=torch.float64))
    for x, y, z in graphs.statements(G):
        gap = graphs.dependence(p, G, x, y, z)
        assert gap.max() < 1e-12 if not graphs.active_trails(G, x, y, z) else (gap > 1e-9).all()


def test_one_entry_of_a_gibbs_distribution_by_hand():
    G = nx.Graph([("b", "a"), ("b", "c")])
    potentials = {
        frozenset("ab"): torch.tensor([[1.0, 2], [3, 4]]),  # [b, a]: axes in the order of list(G)
        frozenset("bc"): torch.tensor([[5.0, 6], [7, 8]]),
    }
    p = graphs.gibbs(G, potentials)  # [b, a, c]
    assert list(G) == ["b", "a", "c"]
    total = (1 + 2) * (5 + 6) + (3 + 4) * (7 + 8)
    assert p[1, 0, 1].item() == pytest.approx(3 * 8 / total)


def test_bad_potentials_are_refused():
    G = nx.path_graph(3)
    good = graphs.random_potentials(G, generator())
    with pytest.raises(ValueError, match="not a clique"):
        graphs.gibbs(G, good | {frozenset((0, 2)): torch.ones(2, 2)})
    with pytest.raises(ValueError, match="negative or not a number"):
        graphs.gibbs(G, good | {frozenset((0, 1)): torch.tensor([[1, -1], [1, 1]])})
    with pytest.raises(ValueError, match=r"no potential holds \{2\}"):
        graphs.gibbs(G, {frozenset((0, 1)): torch.ones(2, 2)})
