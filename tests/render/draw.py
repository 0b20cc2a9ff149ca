"""Draws a dashboard from the answers to its queries, about as Grafana shows it."""

import math
from datetime import UTC, datetime
from io import BytesIO

import matplotlib
from matplotlib import pyplot
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, NullLocator
from PIL import Image

from units import write

matplotlib.use("Agg")

# One unit of Grafana's grid, in pixels, at the width of a laptop's window.
CELL_WIDTH, CELL_HEIGHT, DPI = 58, 30, 100
PAGE, CARD, LINE, TEXT, FAINT = "#111217", "#181b1f", "#2c3036", "#d5d6dc", "#8e9199"
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff9830", "#f2495c", "#b877d9", "#5794f2", "#ffcb7d", "#96d98d", "#c0d8ff"]
COLOURS = {"green": "#73bf69", "yellow": "#f2cc0c", "orange": "#ff9830", "red": "#f2495c"}
GAP = 6


class Page:
    """A figure whose parts are placed in pixels from the top left."""

    def __init__(self, dashboard, span):
        self.dashboard, self.span = dashboard, span
        self.width = 24 * CELL_WIDTH
        self.top = 44
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard.panels)
        self.height = bottom * CELL_HEIGHT + self.top
        self.figure = pyplot.figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor=PAGE)
        self.text(12, 26, dashboard.model["title"], size=13, weight="bold")
        self.text(self.width - 12, 26, f"{clock(span[0])} – {clock(span[1])} UTC", size=9, color=FAINT, ha="right")

    def axes(self, x, y, width, height, **options):
        box = [x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height]
        return self.figure.add_axes(box, **options)

    def text(self, x, y, text, size=8.0, **options):
        options = {"color": TEXT, "va": "center"} | options
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, **options)

    def png(self):
        """The picture in 192 colours: flat areas need no more, and the file is a third."""
        drawn = BytesIO()
        self.figure.savefig(drawn, format="png", facecolor=PAGE)
        pyplot.close(self.figure)
        small = BytesIO()
        Image.open(drawn).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        return small.getvalue()


def clock(time):
    return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S")


def draw(dashboard, prometheus, start, end):
    """Returns a PNG."""
    page = Page(dashboard, (start, end))
    marks = [(query, prometheus.range(query, start, end)) for query in dashboard.annotations()]
    for panel in dashboard.panels:
        place = panel["gridPos"]
        x, y = place["x"] * CELL_WIDTH + GAP / 2, place["y"] * CELL_HEIGHT + page.top
        width, height = place["w"] * CELL_WIDTH - GAP, place["h"] * CELL_HEIGHT - GAP
        if panel["type"] == "row":
            page.text(x + 8, y + height / 2, "▾  " + panel["title"], size=10, weight="bold")
            continue
        page.axes(x, y, width, height, facecolor=CARD, xticks=[], yticks=[]).spines[:].set_color(LINE)
        page.text(x + 10, y + 14, panel["title"], size=9, weight="bold")
        series = [one for query in dashboard.queries(panel) for one in prometheus.range(query, start, end)]
        if not series:
            page.text(x + width / 2, y + height / 2, "No data", color=COLOURS["red"], ha="center", size=11)
            continue
        DRAWERS[panel["type"]](page, panel, series, (x, y, width, height), marks)
    return page.png()


def unit_of(panel):
    defaults = panel["fieldConfig"]["defaults"]
    return defaults.get("unit", "short"), defaults.get("decimals")


def level_colour(panel, value):
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]]


def style_axes(page, axes, time_axis=True):
    axes.set_facecolor(CARD)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=FAINT, labelsize=7, length=0)
    axes.grid(True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    if time_axis:
        axes.set_xlim(*page.span)
        axes.xaxis.set_major_locator(MaxNLocator(4 if axes.get_position().width < 0.5 else 8, prune="both"))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda time, _: clock(time)))


def draw_marks(axes, marks):
    """Annotations: a line where each begins; what lasts since before the picture is no news."""
    for colour, (_, series) in zip(("#73bf69", "#ff9830"), marks):
        for one in series:
            if one.times[0] > axes.get_xlim()[0] + 1:
                axes.axvline(one.times[0], color=colour, linewidth=0.9, linestyle=(0, (3, 3)), alpha=0.8)


def time_series(page, panel, series, box, marks):
    x, y, width, height = box
    unit, decimals = unit_of(panel)
    colours = {id(one): PALETTE[number % len(PALETTE)] for number, one in enumerate(series)}
    columns = max(1, int((width - 12) // max(entry_width(panel, one) for one in series)))
    rows = min(-(-len(series) // columns), 3)
    under = 15 * rows + 22
    custom = panel["fieldConfig"]["defaults"]["custom"]
    axes = page.axes(x + 58, y + 28, width - 72, height - 34 - under)
    style_axes(page, axes)
    draw_marks(axes, marks)
    if custom["stacking"]["mode"] == "normal":
        stacked(axes, series)
    else:
        for one in series:
            colour = colours[id(one)]
            axes.plot(one.times, one.values, color=colour, linewidth=1.2)
            axes.fill_between(one.times, one.values, color=colour, alpha=custom["fillOpacity"] / 100, linewidth=0)
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        axes.set_ylim(*decades(series))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, panel["fieldConfig"]["defaults"].get("max", max(one.highest for one in series) or 1) * 1.05)
        if custom["stacking"]["mode"] == "normal":
            axes.autoscale(axis="y")
            axes.set_ylim(0, max(axes.get_ylim()[1], 1e-6))
        axes.yaxis.set_major_locator(ticks(unit, decimals, axes.get_ylim()[1]))
    limits(panel, axes)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value, unit, decimals)))
    shown = [(one, colours[id(one)]) for one in in_order(panel, series)]
    entries(page, panel, shown, (x, y + height - 15 * rows - 2, width, columns, rows))


def stacked(axes, series):
    times = sorted({time for one in series for time in one.times})
    levels = [dict(zip(one.times, one.values)) for one in series]
    rows = [[level.get(time, 0.0) for time in times] for level in levels]
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(rows))]
    axes.stackplot(times, rows, colors=colours, alpha=0.45, linewidth=0)
    total = [0.0] * len(times)
    for row, colour in zip(rows, colours):
        total = [below + value for below, value in zip(total, row)]
        shown = [level if value else math.nan for level, value in zip(total, row)]
        axes.plot(times, shown, color=colour, linewidth=1)


def in_order(panel, series):
    """As the legend of the panel is sorted."""
    legend_options = panel["options"]["legend"]
    if "sortBy" not in legend_options:
        return series
    return sorted(series, key=lambda one: -one.highest if not math.isnan(one.highest) else math.inf)


def decades(series):
    """Whole powers of ten around all values."""
    values = [value for one in series for value in one.values if value > 0] or [1]
    lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**lowest, 10.0 ** max(highest, lowest + 1)


def ticks(unit, decimals, highest):
    if unit == "bytes":
        return MultipleLocator(2 ** math.ceil(math.log2(max(highest, 4) / 4)))
    return MaxNLocator(4, integer=decimals == 0)


def limits(panel, axes):
    if panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] == "off":
        return
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is not None and step["value"] <= axes.get_ylim()[1]:
            axes.axhline(step["value"], color=COLOURS[step["color"]], linewidth=0.9, linestyle="--")


def figures(panel, one):
    return f"{write(one.last, *unit_of(panel))}   max {write(one.highest, *unit_of(panel))}"


def entry_width(panel, one):
    """Pixels that an entry of the legend takes."""
    return 14 + 5.5 * len(one.name) + 5 * len(figures(panel, one)) + 26


def entries(page, panel, series, place):
    """The legend: name, last and highest value."""
    x, y, width, columns, rows = place
    room = rows * columns
    shown = series if len(series) <= room else series[: room - 1]
    for number, (one, colour) in enumerate(shown):
        left = x + 12 + (number % columns) * (width - 16) / columns
        level = y + (number // columns) * 15
        right = left + (width - 16) / columns - 14
        page.text(left, level, "■", size=7, color=colour)
        said = figures(panel, one)
        page.text(left + 14, level, clipped(one.name, (right - left - 14 - 4.6 * len(said)) / 5.2), size=7.5)
        page.text(right, level, said, size=7, color=FAINT, ha="right")
    if len(shown) < len(series):
        left = x + 12 + ((room - 1) % columns) * (width - 16) / columns
        page.text(left, y + (rows - 1) * 15, f"and {len(series) - len(shown)} more", size=7.5, color=FAINT)


def clipped(text, length):
    return text if len(text) <= length else text[: max(1, int(length) - 1)] + "…"


def stat(page, panel, series, box, _):
    x, y, width, height = box
    unit, decimals = unit_of(panel)
    one = series[0]
    colour = level_colour(panel, one.last)
    axes = page.axes(x + 1, y + height * 0.55, width - 2, height * 0.45 - 1)
    axes.fill_between(one.times, one.values, color=colour, alpha=0.18, linewidth=0)
    axes.plot(one.times, one.values, color=colour, linewidth=0.9)
    axes.set_xlim(*page.span)
    axes.set_ylim(0, max(one.highest, 1e-9) * 1.1)
    axes.axis("off")
    page.text(x + width / 2, y + height * 0.48, write(one.last, unit, decimals), size=20, color=colour, ha="center")


def bars(page, panel, series, box, _):
    x, y, width, height = box
    unit, decimals = unit_of(panel)
    series = sorted(series, key=lambda one: one.name)
    step = min(34, (height - 34) / len(series))
    for number, one in enumerate(series):
        level = y + 30 + number * step
        axes = page.axes(x + 86, level, width - 160, step - 6, facecolor=LINE, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_xlim(0, panel["fieldConfig"]["defaults"]["max"])
        axes.barh(0, one.last, color=level_colour(panel, one.last), height=1)
        axes.set_ylim(-0.5, 0.5)
        page.text(x + 12, level + step / 2 - 3, clipped(one.name, 14), size=8)
        value = write(one.last, unit, decimals)
        page.text(x + width - 12, level + step / 2 - 3, value, size=9, color=level_colour(panel, one.last), ha="right")


def heat_map(page, panel, series, box, marks):
    x, y, width, height = box
    unit = panel["options"]["yAxis"]["unit"]
    edges = sorted({float(one.labels["le"]) for one in series})
    times = sorted({time for one in series for time in one.times})
    found = {float(one.labels["le"]): dict(zip(one.times, one.values)) for one in series}
    cells, below = [], dict.fromkeys(times, 0.0)
    for edge in edges:
        level = {time: found[edge].get(time, 0.0) for time in times}
        cells.append([max(level[time] - below[time], 0) or math.nan for time in times])
        below = level
    axes = page.axes(x + 58, y + 28, width - 116, height - 60)
    style_axes(page, axes)
    axes.grid(False)
    highest = max((cell for row in cells for cell in row if not math.isnan(cell)), default=1)
    wide = [*times, times[-1] + 1]
    mesh = axes.pcolormesh(wide, range(len(edges) + 1), cells, cmap="turbo", norm=LogNorm(0.1, max(highest, 1)))
    names = ["more" if math.isinf(edge) else "≤ " + write(edge, unit) for edge in edges]
    axes.set_yticks([number + 0.5 for number in range(0, len(names), 2)], names[::2])
    used = [number for number, row in enumerate(cells) if any(not math.isnan(cell) for cell in row)] or [0]
    axes.set_ylim(max(0, min(used) - 1), min(len(edges), max(used) + 2))
    draw_marks(axes, marks)
    bar = page.figure.colorbar(mesh, cax=page.axes(x + width - 46, y + 28, 8, height - 60))
    bar.ax.tick_params(colors=FAINT, labelsize=6.5, length=0)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
    bar.outline.set_visible(False)


def state_timeline(page, panel, series, box, _):
    x, y, width, height = box
    states = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    axes = page.axes(x + 86, y + 28, width - 100, height - 76)
    style_axes(page, axes)
    axes.grid(False)
    series = sorted(series, key=lambda one: one.name, reverse=True)
    for level, one in enumerate(series):
        for time, value in zip(one.times, one.values):
            axes.barh(level, 1.02, left=time, height=0.75, color=COLOURS[states[f"{value:.0f}"]["color"]], linewidth=0)
    axes.set_yticks(range(len(series)), [clipped(one.name, 14) for one in series])
    axes.set_ylim(-0.6, len(series) - 0.4)
    for number, state in enumerate(states.values()):
        page.text(x + 90 + 90 * number, y + height - 14, "■", color=COLOURS[state["color"]], size=8)
        page.text(x + 104 + 90 * number, y + height - 14, state["text"], size=8)


def table(page, panel, series, box, _):
    x, y, width, height = box
    names = panel["transformations"][1]["options"]["renameByName"]
    units = {one["matcher"]["options"]: one["properties"][0]["value"] for one in panel["fieldConfig"]["overrides"]}
    columns = [name for name in names if name.startswith("Value") or any(one.labels.get(name) for one in series)]
    rows = rows_of(series)
    lane = (width - 24) / len(columns)
    for number, name in enumerate(columns):
        left = x + 12 + number * lane
        page.text(left, y + 36, names[name], size=8, color="#6e9fff", weight="bold")
        for level, row in enumerate(rows):
            value = row.get(name, "")
            value = value if isinstance(value, str) else write(value, units.get(names[name], "short"))
            page.text(left, y + 56 + level * 18, value, size=8.5)


def rows_of(series):
    """Merges the answers of a table's queries: a row for each node."""
    merged = {}
    for one in series:
        row = merged.setdefault((one.labels.get("pod", ""), one.labels.get("instance", "")), {})
        row |= one.labels | {f"Value #{one.ref}": one.last}
    return [merged[key] for key in sorted(merged)]


DRAWERS = {
    "timeseries": time_series, "stat": stat, "bargauge": bars, "heatmap": heat_map,
    "state-timeline": state_timeline, "table": table,
}
