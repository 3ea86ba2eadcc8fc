/* One strip a label: every case a dot, the box from the first quartile to the third, the median a line. */
const STRIP = { left: 150, right: 20, height: 40, top: 8, width: 900 };

function shape(tag, attributes, ...children) {
  const element = document.createElementNS(byId("strips").namespaceURI, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/* Round numbers that reach from below the least to above the greatest value. */
function ticksOf(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const rough = (high - low || Math.abs(high) || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const first = Math.floor(low / step), last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

/* A height within the strip that is the same every time: cases spread evenly over it. */
const spread = (index) => ((index * 0.618034) % 1) - 0.5;

function groups(column) {
  const wanted = table.search.toLowerCase();
  const fits = (row) => row.values[column] !== null && REPORT.names[row.case].toLowerCase().includes(wanted) &&
    (!table.onlyShown || shownOf.has(row.case));
  if (table.label === MEANS && REPORT.labels.length > 12) return [["mean of all", meanRows.filter(fits)]];
  const labels = [...REPORT.labels.keys()];
  const chosen = labels.filter((l) => table.label === MEANS || table.label === EACH || l === Number(table.label));
  return chosen.map((l) => [REPORT.labels[l], REPORT.rows.filter((row) => row.label === l && fits(row))]);
}

function dot(row, column, x, y) {
  const place = shownOf.get(row.case);
  const text = `${REPORT.names[row.case]}: ${shownNumber(row.values[column])}`;
  const kind = place === undefined ? "dot" : "dot shown";
  const circle = shape("circle", { cx: x, cy: y, r: place === undefined ? 3 : 4, class: kind }, shape("title", {}, text));
  if (place !== undefined) circle.addEventListener("click", () => openCase(place, row.label, true));
  return circle;
}

function box(values, x, top) {
  const inOrder = [...values].sort((a, b) => a - b);
  const [q1, middle, q3] = [0.25, 0.5, 0.75].map((share) => x(quantile(inOrder, share)));
  const height = STRIP.height - 14;
  return [
    shape("rect", { x: q1, y: top, width: Math.max(q3 - q1, 1), height, class: "box" }),
    shape("line", { x1: middle, x2: middle, y1: top, y2: top + height, class: "median" }),
  ];
}

function drawStrips() {
  const column = Number(byId("metric").value), found = groups(column), svg = byId("strips");
  const values = found.flatMap(([, rows]) => rows.map((row) => row.values[column]));
  const name = REPORT.columns[column]?.heading;
  if (!values.length) {
    svg.replaceChildren();
    svg.setAttribute("height", 0);
    byId("strips-caption").textContent = "No value to show.";
    return;
  }
  const ticks = ticksOf(values), bottom = STRIP.top + found.length * STRIP.height;
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const x = (value) => STRIP.left + ((value - low) / (high - low)) * (STRIP.width - STRIP.left - STRIP.right);
  const parts = ticks.flatMap((tick) => [
    shape("line", { x1: x(tick), x2: x(tick), y1: STRIP.top, y2: bottom, class: "axis" }),
    shape("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, String(tick)),
  ]);
  found.forEach(([label, rows], number) => {
    const top = STRIP.top + number * STRIP.height + 7, middle = top + (STRIP.height - 14) / 2;
    const short = label.length > 20 ? `${label.slice(0, 19)}…` : label;
    parts.push(shape("text", { x: STRIP.left - 10, y: middle + 4, "text-anchor": "end" }, short, shape("title", {}, label)));
    if (rows.length > 1) parts.push(...box(rows.map((row) => row.values[column]), x, top));
    parts.push(...rows.map((row) => dot(row, column, x(row.values[column]), middle + spread(row.case) * 22)));
  });
  svg.setAttribute("viewBox", `0 0 ${STRIP.width} ${bottom + 26}`);
  svg.removeAttribute("height");
  svg.setAttribute("aria-label", `${name} of each case, by label; the same numbers are in the table below`);
  svg.replaceChildren(...parts);
  const better = { higher: "higher is better", lower: "lower is better", zero: "0 is best" }[REPORT.columns[column].better];
  byId("strips-caption").textContent =
    `${name} (${better}): a dot is a case, the box holds the middle half, the line is the median. ` +
    "Blue dots can be viewed by a click.";
}
