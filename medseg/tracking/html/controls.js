/* Keys, mouse and forms of the viewer. */
const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
const PAN = { ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1] };

function moveSlice(plane, by) {
  const at = [...viewer.view.cursor];
  at[plane.fixed] = Math.min(Math.max(at[plane.fixed] + by, 0), plane.count - 1);
  viewer.view.go(at);
}

function setZoom(zoom) {
  viewer.view.zoom = Math.min(Math.max(zoom, 1), 16);
  viewer.view.centre = [...viewer.view.cursor];
  redraw();
}

function toggle(name) {
  const input = byId(`show-${name}`);
  input.checked = settings.show[name] = !settings.show[name];
  redraw();
}

const KEYS = {
  "+": () => setZoom(viewer.view.zoom * 1.25), "=": () => setZoom(viewer.view.zoom * 1.25),
  "-": () => setZoom(viewer.view.zoom / 1.25), "0": () => setZoom(1),
  r: () => toggle("reference"), p: () => toggle("prediction"), e: () => toggle("errors"),
};

function onKey(plane, event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in STEPS && plane.count > 1) moveSlice(plane, STEPS[event.key]);
  else if (event.key in PAN && plane.count === 1) viewer.view.go(viewer.view.cursor.map((at, axis) => at + PAN[event.key][axis]));
  else if (event.key in KEYS) KEYS[event.key]();
  else return;
  event.preventDefault();
}

function onWheel(plane, event) {
  if (event.ctrlKey) setZoom(viewer.view.zoom * (event.deltaY < 0 ? 1.25 : 0.8));
  else if (plane.count > 1) moveSlice(plane, event.deltaY < 0 ? 1 : -1);
  else return;
  event.preventDefault();
}

/* Dragging moves the cross-hair, or a picture that is zoomed; with the right button or Shift it changes the window. */
function onDown(plane, event) {
  const { view } = viewer, grey = event.button === 2 || event.shiftKey;
  const [low, high] = view.window, from = [event.clientX, event.clientY], centre = view.centre;
  const ratio = plane.canvas.width / plane.canvas.clientWidth;
  const pan = (now) => {
    const by = [0, (from[1] - now.clientY) * ratio / plane.dy, (from[0] - now.clientX) * ratio / plane.dx];
    view.centre = centre.map((at, axis) => Math.min(Math.max(at + by[axis], 0), view.shape[axis] - 1));
    redraw();
  };
  const move = (now) => {
    if (!grey) return view.single ? pan(now) : view.go(plane.under(now), false);
    if (!view.image) return undefined;
    const width = Math.max((high - low) * Math.exp((now.clientX - from[0]) / 200), view.part.image.step);
    const level = (high + low) / 2 + ((from[1] - now.clientY) / 300) * (high - low);
    view.setWindow(level - width / 2, level + width / 2);
    return redraw();
  };
  plane.canvas.setPointerCapture(event.pointerId);
  plane.canvas.addEventListener("pointermove", move);
  const end = () => plane.canvas.removeEventListener("pointermove", move);
  plane.canvas.addEventListener("pointerup", end, { once: true });
  plane.canvas.addEventListener("pointercancel", end, { once: true });
  if (!grey) view.go(plane.under(event), false);
}

function listen(plane) {
  plane.canvas.addEventListener("keydown", (event) => onKey(plane, event));
  plane.canvas.addEventListener("wheel", (event) => onWheel(plane, event), { passive: false });
  plane.canvas.addEventListener("pointerdown", (event) => onDown(plane, event));
  plane.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  plane.slider.addEventListener("input", () => moveSlice(plane, Number(plane.slider.value) - viewer.view.cursor[plane.fixed]));
}

function startControls() {
  const on = (id, kind, act) => byId(id).addEventListener(kind, act);
  on("case", "change", (event) => openCase(Number(event.target.value)));
  on("part", "change", (event) => openCase(viewer.place, settings.label - 1, false, Number(event.target.value)));
  on("shown-label", "change", (event) => { settings.label = Number(event.target.value); redraw(); });
  on("fill", "change", (event) => { settings.fill = event.target.value; redraw(); });
  on("opacity", "input", (event) => { settings.opacity = event.target.value / 100; redraw(); });
  on("zoom", "input", (event) => setZoom(2 ** (event.target.value / 25)));
  on("cross", "change", (event) => { settings.cross = event.target.checked; redraw(); });
  for (const name of Object.keys(settings.show)) {
    on(`show-${name}`, "change", (event) => { settings.show[name] = event.target.checked; redraw(); });
  }
  const window_ = () => {
    const width = Math.max(Number(byId("width").value), viewer.view.part.image.step), level = Number(byId("level").value);
    viewer.view.setWindow(level - width / 2, level + width / 2);
    redraw();
  };
  on("width", "change", window_);
  on("level", "change", window_);
  on("auto", "click", () => { viewer.view.setWindow(...viewer.view.part.image.window); redraw(); });
  on("full", "click", () => { viewer.view.setWindow(...viewer.view.range); redraw(); });
  for (const form of byId("viewer").querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
  new ResizeObserver(() => redraw()).observe(byId("planes"));
}

function startViewer() {
  if (!REPORT.cases.length) return;
  if (typeof DecompressionStream === "undefined") {
    byId("no-viewer").textContent = "The viewer needs a newer browser: Chrome or Edge 80, Firefox 113, Safari 16.4.";
    return;
  }
  byId("no-viewer").hidden = true;
  byId("viewer").hidden = false;
  fillSelect(byId("case"), REPORT.cases.map((shown, i) => [i, `${REPORT.names[shown.index]} (${shown.word})`]));
  fillSelect(byId("shown-label"), [[0, "all labels"], ...REPORT.choices.map(([name], i) => [i + 1, name])]);
  const classes = REPORT.colours.classes;
  byId("classes").replaceChildren(...REPORT.classes.map((name, i) => {
    const key = make("span", { class: "key" });
    key.style.background = rgb(classes[i % classes.length]);
    return make("span", {}, key, ` ${name}`);
  }));
  startControls();
  openCase(Math.max(REPORT.cases.findIndex((shown) => shown.parts[0].prediction), 0));
}

startTable();
startViewer();
