/* The viewer: one case, one of its parts, three planes through one voxel (one plane of a picture). */
const KEPT = 3;
const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
const word = ([r, g, b], share) => ((Math.round(255 * share) << 24) | (b << 16) | (g << 8) | r) >>> 0;

const viewer = { planes: [], view: null, place: -1, part: 0, volumes: new Map(), turn: 0 };
const settings = { opacity: 0.7, show: { reference: true, prediction: true, errors: false }, fill: "", label: 0, cross: true };

/* The voxels of a part, unpacked once; those of the last few parts are kept. */
async function volumesOf(part) {
  const key = part.reference.id;
  if (!viewer.volumes.has(key)) {
    const load = (packed) => (packed ? unpack(packed) : null);
    viewer.volumes.set(key, Promise.all([load(part.image), load(part.reference), load(part.prediction)]));
    for (const old of [...viewer.volumes.keys()].slice(0, -KEPT)) viewer.volumes.delete(old);
  }
  return viewer.volumes.get(key);
}

class View {
  constructor(shown, part, [image, reference, prediction]) {
    Object.assign(this, { shown, part, image, reference, prediction });
    this.shape = part.shape;
    this.spacing = part.spacing;
    this.size = part.shape[0] * part.shape[1] * part.shape[2];
    this.anatomical = shown.anatomical;
    this.single = part.shape[0] === 1 && !shown.anatomical;
    this.colour = Boolean(part.image && part.image.channels === 3);
    this.cursor = [...part.focus];
    this.centre = [...part.focus];
    this.zoom = 1;
    this.ignored = REPORT.classes.length + 1;
    this.colours = { reference: rgb(REPORT.colours.missed), prediction: rgb(REPORT.colours.excess) };
    this.setWindow(...(part.image ? part.image.window : [0, 1]));
  }

  get opacity() { return settings.opacity; }
  get show() { return settings.show; }
  get fill() { return settings.fill; }

  /* What a class is drawn as: all as themselves, or those of one label alone, a region's as one. */
  get remap() {
    const [, wanted] = settings.label ? REPORT.choices[settings.label - 1] : [];
    const drawn = (code) => (wanted ? (wanted.includes(code) ? wanted[0] : 0) : code);
    return Uint16Array.from({ length: this.ignored + 1 }, (_, code) => (code === this.ignored ? 0 : drawn(code)));
  }
  get cross() { return settings.cross; }
  get words() {
    const { missed, excess, confused, classes } = REPORT.colours;
    const tint = (colour) => word(colour, settings.opacity);
    return { reference: tint(missed), prediction: tint(excess), confused: tint(confused), classes: classes.map(tint) };
  }

  /* Values that are black and white; a table says the grey of every stored code. */
  setWindow(low, high) {
    this.window = [low, high];
    if (!this.image) return;
    const { low: first, step, bytes } = this.part.image;
    this.tone = new Uint8ClampedArray(bytes === 1 ? 256 : 4096);
    for (let code = 0; code < this.tone.length; code++) {
      this.tone[code] = (255 * (first + step * code - low)) / (high - low || 1);
    }
  }

  get range() {
    const { low, step } = this.part.image;
    let least = Infinity, most = -Infinity;
    for (const code of this.image) {
      if (code < least) least = code;
      if (code > most) most = code;
    }
    return [low + step * least, low + step * Math.max(most, least + 1)];
  }

  /* Canvas pixels a millimetre at which every plane fits: one scale for all. */
  scale(ratio) {
    return Math.min(...viewer.planes.map(({ canvas, width, height, columns, rows }) => Math.min(
      (canvas.clientWidth * ratio) / (width * this.spacing[columns]),
      (canvas.clientHeight * ratio) / (height * this.spacing[rows]))));
  }

  /* Moves the cross-hair; what is zoomed follows, unless a pointer is over it. */
  go(at, follow = true) {
    this.cursor = at.map((value, axis) => Math.min(Math.max(value, 0), this.shape[axis] - 1));
    if (follow) this.centre = [...this.cursor];
    redraw();
  }

  name(value) {
    return value === 0 ? "background" : value === this.ignored ? "ignored" : REPORT.classes[value - 1];
  }

  readout() {
    const { part, cursor, shape, image } = this;
    const at = (cursor[0] * shape[1] + cursor[1]) * shape[2] + cursor[2];
    const place = cursor.map((value, axis) => part.offset[axis] + value * part.step[axis]).slice(this.single ? 1 : 0);
    const value = (k) => shownNumber(part.image.low + part.image.step * image[k * this.size + at]);
    const grey = !image ? [] : [`value ${this.colour ? [0, 1, 2].map(value).join(", ") : value(0)}`];
    const found = this.prediction ? [`prediction ${this.name(this.prediction[at])}`] : [];
    const axes = (this.single ? "y, x" : "z, y, x");
    return [`voxel ${axes} = ${place.join(", ")}`, ...grey, `reference ${this.name(this.reference[at])}`, ...found].join(" · ");
  }
}

function redraw() {
  const { view } = viewer;
  if (!view) return;
  viewer.planes.forEach((plane) => plane.draw());
  byId("readout").textContent = view.readout();
  const [low, high] = view.window;
  byId("width").value = Number((high - low).toPrecision(5));
  byId("level").value = Number(((high + low) / 2).toPrecision(5));
  byId("zoom").value = Math.log2(view.zoom) * 25;
}

/* Opens a case in the viewer: its place among those that can be viewed, and a choice of labels or -1 for all. */
async function openCase(place, label = -1, jump = false, part = 0) {
  const shown = REPORT.cases[place];
  const turn = ++viewer.turn;
  byId("case").value = place;
  fillSelect(byId("part"), shown.parts.map((each, i) => [i, each.title]));
  byId("part").value = part;
  byId("part-choice").hidden = shown.parts.length < 2;
  settings.label = label + 1;
  byId("shown-label").value = settings.label;
  const volumes = await volumesOf(shown.parts[part]);
  if (turn !== viewer.turn) return;
  viewer.place = place;
  viewer.part = part;
  viewer.view = new View(shown, shown.parts[part], volumes);
  byId("grey").hidden = false;
  byId("notes").textContent = shown.notes.join(" ");
  for (const name of ["width", "level", "auto", "full"]) byId(name).disabled = !viewer.view.image;
  viewer.planes = (viewer.view.single ? [0] : [0, 1, 2]).map((number) => new Plane(number, viewer.view));
  byId("planes").replaceChildren(...viewer.planes.map((plane) => plane.figure));
  viewer.planes.forEach(listen);
  redraw();
  table.current = shown.index;
  drawTable();
  if (jump) {
    byId("viewer-heading").scrollIntoView({ block: "start" });
    viewer.planes[0].canvas.focus({ preventScroll: true });
  }
}
