/* The table of cases: rows are one label of one case, or the means over the labels of each case. */
const MEANS = "means", EACH = "each";
const table = { label: MEANS, search: "", onlyShown: false, sort: { column: -1, down: false }, current: -1 };
const shownOf = new Map(REPORT.cases.map((shown, place) => [shown.index, place]));

function meanOf(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

/* All rows, means over labels first made once. */
const meanRows = REPORT.names.map((_, index) => {
  const own = REPORT.rows.filter((row) => row.case === index);
  const values = REPORT.columns.map((_, column) => meanOf(own.map((row) => row.values[column])));
  return { case: index, label: -1, values, missing: own.some((row) => row.missing) };
});

function visibleRows() {
  const rows = table.label === MEANS ? meanRows : REPORT.rows;
  const wanted = table.search.toLowerCase();
  return rows.filter((row) =>
    (table.label === MEANS || table.label === EACH || row.label === Number(table.label)) &&
    REPORT.names[row.case].toLowerCase().includes(wanted) &&
    (!table.onlyShown || shownOf.has(row.case)));
}

/* -2 sorts by label, -1 by the case's place, others by a metric; what is undefined comes last either way. */
function sorted(rows) {
  const { column, down } = table.sort;
  const key = (row) => (column === -1 ? row.case : column === -2 ? row.label : row.values[column]);
  const turned = down ? -1 : 1;
  return rows.map((row, place) => [row, place]).sort(([a, i], [b, j]) => {
    const x = key(a), y = key(b);
    if (x === null || y === null) return (x === null) - (y === null) || i - j;
    return turned * (x - y) || i - j;
  }).map(([row]) => row);
}

function heading(text, column, kind) {
  const { sort } = table;
  const on = sort.column === column;
  const button = make("button", { type: "button" }, text + (on ? (sort.down ? " ▼" : " ▲") : ""));
  button.addEventListener("click", () => {
    table.sort = { column, down: on ? !sort.down : false };
    drawTable();
    byId("table").querySelectorAll("thead button")[[...headings()].indexOf(column)].focus();
  });
  const direction = on ? (sort.down ? "descending" : "ascending") : "none";
  return make("th", { scope: "col", "aria-sort": direction, class: kind }, button);
}

const headings = () => [-1, ...(table.label === MEANS ? [] : [-2]), ...REPORT.columns.keys()];

function rowElement(row) {
  const name = REPORT.names[row.case];
  let first = name;
  if (shownOf.has(row.case)) {
    first = make("button", { type: "button", title: "view" }, name);
    first.addEventListener("click", () => openCase(shownOf.get(row.case), row.label, true));
  }
  const cells = [make("td", { class: "text" }, first)];
  if (table.label !== MEANS) cells.push(make("td", { class: "text" }, REPORT.labels[row.label]));
  cells.push(...row.values.map((value) => make("td", {}, shownNumber(value))));
  const kinds = [row.missing ? "missing" : "", row.case === table.current ? "current" : ""];
  const attributes = { class: kinds.join(" ").trim() };
  if (row.missing) attributes.title = "no prediction: scored worst";
  return make("tr", attributes, ...cells);
}

function drawTable() {
  const rows = sorted(visibleRows());
  const texts = new Map([[-1, "Case"], [-2, "Label"], ...REPORT.columns.map((column, i) => [i, column.heading])]);
  const head = make("tr", {}, ...headings().map((column) => heading(texts.get(column), column, column < 0 ? "text" : "")));
  const body = make("tbody", {}, ...rows.map(rowElement));
  byId("table").replaceChildren(make("table", {}, make("thead", {}, head), body));
  byId("count").textContent = `${rows.length} row${rows.length === 1 ? "" : "s"}`;
  drawStrips();
}

function startTable() {
  fillSelect(byId("label"), [[MEANS, "mean of all"], [EACH, "each"], ...REPORT.labels.map((name, i) => [i, name])]);
  fillSelect(byId("metric"), REPORT.columns.map((column, i) => [i, column.heading]));
  byId("metric").value = REPORT.ranking;
  byId("label").addEventListener("change", (event) => { table.label = event.target.value; drawTable(); });
  byId("metric").addEventListener("change", drawStrips);
  byId("search").addEventListener("input", (event) => { table.search = event.target.value; drawTable(); });
  byId("only-shown").addEventListener("change", (event) => { table.onlyShown = event.target.checked; drawTable(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  drawTable();
}
