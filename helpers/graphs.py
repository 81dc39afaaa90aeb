"""Bayesian and Markov networks: what networkx lacks. Trails and what blocks them, tables, joints, dependence, pictures.

A Bayesian network is an `nx.DiGraph`, a Markov network an `nx.Graph`. Inference and learning do not belong here.
Sources: Pearl, Probabilistic Reasoning in Intelligent Systems (1988), ch. 3; Koller & Friedman, Probabilistic Graphical
Models (2009), ch. 3 and 4; completeness of d-separation: Geiger & Pearl (1990), Meek (1995).
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations, product
from string import ascii_letters

import matplotlib.pyplot as plt
import networkx as nx
import torch
from matplotlib.axes import Axes
from torch import Tensor

Node = Hashable
Statement = tuple[Node, Node, frozenset]

GREEN, ORANGE, RED = "#009E73", "#E69F00", "#D55E00"  # Okabe and Ito, as in helpers.plots


# Independence read off the graph ------------------------------------------------------------------------------------


def statements(nodes: Iterable[Node]) -> Iterator[Statement]:
    """All (x, y, z): a pair of nodes, taken once, and a set z of the others. n (n − 1) / 2 · 2^(n − 2) of them."""
    nodes = list(nodes)
    for x, y in combinations(nodes, 2):
        rest = [v for v in nodes if v not in (x, y)]
        for z in chain.from_iterable(combinations(rest, k) for k in range(len(rest) + 1)):
            yield x, y, frozenset(z)


def trails(G: nx.Graph, x: Node, y: Node) -> list[list[Node]]:
    """All trails from x to y: paths along edges of either direction that visit no node twice."""
    return [list(t) for t in nx.all_simple_paths(nx.Graph(G), x, y)]


def blocking(G: nx.Graph, trail: Sequence[Node], z: Collection[Node]) -> list[Node]:
    """The inner nodes at which z blocks the trail; none: the trail is active (Koller & Friedman 2009, def. 3.6).

    A collider a → b ← c blocks unless z holds b or a descendant of b; any other inner node blocks if z holds it.
    In an undirected graph a node blocks if z holds it (def. 4.8).
    """
    z = set(z)
    blocked = []
    for a, b, c in zip(trail, trail[1:], trail[2:], strict=False):
        collider = G.is_directed() and G.has_edge(a, b) and G.has_edge(c, b)
        if (z.isdisjoint({b} | nx.descendants(G, b))) if collider else (b in z):
            blocked.append(b)
    return blocked


def active_trails(G: nx.Graph, x: Node, y: Node, z: Collection[Node] = ()) -> list[list[Node]]:
    """The trails from x to y that z does not block. None of them: x and y are (d-)separated by z.

    Raises ValueError where x, y and z are not disjoint.
    """
    if x == y or x in z or y in z:
        raise ValueError(f"x = {x!r}, y = {y!r}, z = {set(z)!r} share a node; wanted three disjoint sets")
    return [t for t in trails(G, x, y) if not blocking(G, t, z)]


def all_dags(nodes: Iterable[Node]) -> Iterator[nx.DiGraph]:
    """Every directed acyclic graph on the nodes: 3, 25, 543, 29281 of them on 2, 3, 4, 5 nodes (Robinson 1973)."""
    nodes = list(nodes)
    pairs = list(combinations(nodes, 2))
    for choice in product((None, 1, -1), repeat=len(pairs)):
        G = nx.DiGraph()
        G.add_nodes_from(nodes)
        G.add_edges_from(p[::d] for p, d in zip(pairs, choice, strict=True) if d)
        if nx.is_directed_acyclic_graph(G):
            yield G


# Independence measured in numbers -----------------------------------------------------------------------------------


def random_cpts(
    G: nx.DiGraph, generator: torch.Generator, draws: Sequence[int] = (), states: int = 2
) -> dict[Node, Tensor]:
    """Conditional probability tables, each row uniform on the simplex (Dirichlet with all parameters one).

    One float64 tensor per node: [*draws, states, …, states], the parents' axes in the order of `G.predecessors(node)`,
    then the node's own, along which it sums to one.
    """
    tables = {}
    for v in G:
        shape = (*draws, *[states] * (G.in_degree(v) + 1))
        table = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)
        tables[v] = table / table.sum(-1, keepdim=True)
    return tables


def joint(G: nx.DiGraph, cpts: Mapping[Node, Tensor]) -> Tensor:
    """The product of all tables: [*draws, states of each node], axes in the order of `list(G)`.

    Koller & Friedman 2009, def. 3.4 (the chain rule for Bayesian networks), as one einsum. Raises ValueError where a
    table is missing, has too few axes, or does not sum to one.
    """
    letter = dict(zip(G, ascii_letters, strict=False))
    factors, scripts = [], []
    for v in G:
        family = [*G.predecessors(v), v]
        table = cpts.get(v)
        if table is None or table.ndim < len(family):
            found = "none" if table is None else f"one of shape {tuple(table.shape)}"
            raise ValueError(f"table of {v!r}: found {found}; wanted one axis for each of {family}")
        if not torch.allclose(table.sum(-1), torch.ones((), dtype=table.dtype), atol=1e-9):
            raise ValueError(f"table of {v!r} does not sum to one along its last axis; divide by the sum")
        factors.append(table)
        scripts.append("..." + "".join(letter[u] for u in family))
    return torch.einsum(",".join(scripts) + "->..." + "".join(letter[v] for v in G), *factors)


def random_potentials(
    G: nx.Graph, generator: torch.Generator, draws: Sequence[int] = (), states: int = 2
) -> dict[frozenset, Tensor]:
    """One positive table for each maximal clique of an undirected graph, entries exp(standard normal).

    One float64 tensor per clique: [*draws, states, …, states], its nodes' axes in the order of `list(G)`.
    """
    cliques = sorted((frozenset(c) for c in nx.find_cliques(G)), key=lambda c: [v in c for v in G], reverse=True)
    shapes = {c: (*draws, *[states] * len(c)) for c in cliques}
    return {c: torch.randn(shape, dtype=torch.float64, generator=generator).exp() for c, shape in shapes.items()}


def gibbs(G: nx.Graph, potentials: Mapping[frozenset, Tensor]) -> Tensor:
    """The normalized product of all potentials: [*draws, states of each node], axes in the order of `list(G)`.

    Koller & Friedman 2009, def. 4.3. Raises ValueError where a potential's nodes are not a clique of G, or an entry is
    negative, or a node has no potential.
    """
    letter = dict(zip(G, ascii_letters, strict=False))
    for c, table in potentials.items():
        if not c <= set(G) or not all(G.has_edge(u, v) for u, v in combinations(c, 2)):
            raise ValueError(f"potential on {set(c)!r}, which is not a clique of the graph; add the missing edges")
        if not (table >= 0).all():
            raise ValueError(f"potential on {set(c)!r} has an entry that is negative or not a number")
    if missing := set(G).difference(*potentials):
        raise ValueError(f"no potential holds {missing!r}; add a table of ones for each")
    scripts = ["..." + "".join(letter[v] for v in G if v in c) for c in potentials]
    p = torch.einsum(",".join(scripts) + "->..." + "".join(letter[v] for v in G), *potentials.values())
    return p / p.sum(tuple(range(p.ndim - len(G), p.ndim)), keepdim=True)


def dependence(
    joint: Tensor,
    nodes: Iterable[Node],
    x: Node | Collection[Node],
    y: Node | Collection[Node],
    z: Collection[Node] = (),
) -> Tensor:
    """The largest |P(x, y | z) − P(x | z) P(y | z)| over all values, one number a draw: 0 where x ⊥ y | z holds.

    `joint` is [*draws, states of each node] with the axes in the order of `nodes`; x and y are a node or a list,
    tuple or set of nodes. Values z of probability 0 are left out, for the statement says nothing there. Raises
    ValueError where x, y and z are not disjoint.
    """
    axis = {v: k for k, v in enumerate(nodes)}
    groups = [list(g) if isinstance(g, (list, tuple, set, frozenset)) else [g] for g in (x, y, z)]
    used = [v for g in groups for v in g]
    if len(set(used)) < len(used):
        raise ValueError(f"x = {x!r}, y = {y!r}, z = {z!r} share a node; wanted three disjoint sets")
    lead = joint.ndim - len(axis)
    order = [lead + axis[v] for v in [*used, *(v for v in axis if v not in used)]]
    sizes = [_size(joint, [lead + axis[v] for v in g]) for g in groups]
    p = joint.permute(*range(lead), *order).reshape(*joint.shape[:lead], *sizes, -1).sum(-1)  # [*draws, x, y, z]
    p_z = p.sum((-3, -2), keepdim=True)
    p = torch.where(p_z > 0, p / p_z, 0.0)  # P(x, y | z)
    return (p - p.sum(-2, keepdim=True) * p.sum(-3, keepdim=True)).abs().amax((-3, -2, -1))


def _size(p: Tensor, axes: Iterable[int]) -> int:
    size = 1
    for k in axes:
        size *= p.shape[k]
    return size


# Pictures -----------------------------------------------------------------------------------------------------------


def draw(
    G: nx.Graph,
    pos: Mapping[Node, tuple[float, float]],
    ax: Axes | None = None,
    notes: Mapping[Node, str] | None = None,
    ends: tuple[Node, Node] | None = None,
    given: Collection[Node] = (),
) -> Axes:
    """The graph with observed nodes (`given`) shaded and a note to the right of each node.

    `ends=(x, y)` shows all trails from x to y: active ones thick and green, blocked ones dashed, with a cross at each
    blocking node. An edge on an active and on a blocked trail is drawn as active.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(4.2, 3.2))
    found = trails(G, *ends) if ends else []
    stops = [blocking(G, t, given) for t in found]
    active = {e for t, stop in zip(found, stops, strict=True) if not stop for e in _edges(t)}
    blocked = {e for t, stop in zip(found, stops, strict=True) if stop for e in _edges(t)} - active
    for edges, colour, width, style in (
        ([e for e in G.edges if frozenset(e) not in active | blocked], "0.45", 1.3, "solid"),
        ([e for e in G.edges if frozenset(e) in blocked], ORANGE, 2.2, (0, (3, 2))),
        ([e for e in G.edges if frozenset(e) in active], GREEN, 3.6, "solid"),
    ):
        arrows = {"arrows": True, "arrowstyle": "-|>" if G.is_directed() else "-", "arrowsize": 16}
        nx.draw_networkx_edges(
            G, pos, edges, ax=ax, edge_color=colour, width=width, style=style, node_size=720, **arrows
        )
    ring = [GREEN if ends and v in ends else "0.2" for v in G]
    fill = ["0.78" if v in given else "white" for v in G]
    wide = [2.6 if ends and v in ends else 1.2 for v in G]
    nx.draw_networkx_nodes(G, pos, ax=ax, node_color=fill, edgecolors=ring, linewidths=wide, node_size=720)
    for v in {v for stop in stops for v in stop}:
        ax.plot(*pos[v], marker="x", color=RED, markersize=27, markeredgewidth=2.6, zorder=2.5)
    for v, colour in zip(G, fill, strict=True):  # the name in front of a cross, on a patch of the node's colour
        patch = {"boxstyle": "circle,pad=0.1", "facecolor": colour, "edgecolor": "none"}
        ax.text(*pos[v], str(v), fontsize=11, ha="center", va="center", bbox=patch, zorder=3)
    for v, note in (notes or {}).items():
        ax.annotate(note, pos[v], (19, 0), textcoords="offset points", ha="left", va="center", fontsize=8.5)
    ax.margins(x=0.35 if notes else 0.2, y=0.2)
    ax.axis("off")
    return ax


def _edges(trail: Sequence[Node]) -> list[frozenset]:
    return [frozenset(e) for e in zip(trail, trail[1:], strict=False)]
