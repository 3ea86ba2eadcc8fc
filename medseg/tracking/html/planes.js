/* One plane of the volume on a canvas. Axes are 0 z, 1 y, 2 x; an anatomical volume's z runs to the head, y to the
   back, x to the patient's left, and the head is drawn above. */
const PLANES = [
  { fixed: 0, rows: 1, columns: 2, names: ["Axial", "XY"], edges: ["A", "P", "R", "L"] },
  { fixed: 1, rows: 0, columns: 2, names: ["Coronal", "XZ"], edges: ["S", "I", "R", "L"] },
  { fixed: 2, rows: 0, columns: 1, names: ["Sagittal", "YZ"], edges: ["S", "I", "A", "P"] },
];

class Plane {
  constructor(number, view) {
    Object.assign(this, PLANES[number]);
    this.view = view;
    this.name = this.names[view.anatomical ? 0 : 1];
    this.turned = view.anatomical && this.rows === 0;
    const role = this.count > 1 ? { role: "slider", "aria-orientation": "vertical" } : { role: "img" };
    this.canvas = make("canvas", { tabindex: 0, ...role });
    this.slider = make("input", { type: "range", tabindex: -1, "aria-hidden": "true", min: 0 });
    this.caption = make("figcaption");
    this.figure = make("figure", { class: view.single ? "plane single" : "plane" }, this.caption, this.canvas);
    if (this.count > 1) this.figure.append(this.slider);
    this.slider.max = this.count - 1;
    this.layers = [0, 1].map(() => document.createElement("canvas"));
  }

  get count() { return this.view.shape[this.fixed]; }
  get height() { return this.view.shape[this.rows]; }
  get width() { return this.view.shape[this.columns]; }

  /* The place of a voxel of the plane in the volume; rows count from the top of the picture. */
  start(row) {
    const at = [0, 0, 0];
    at[this.fixed] = this.view.cursor[this.fixed];
    at[this.rows] = this.turned ? this.height - 1 - row : row;
    return (at[0] * this.view.shape[1] + at[1]) * this.view.shape[2] + at[2];
  }
  get stride() { return this.columns === 2 ? 1 : this.view.shape[2]; }

  /* The classes of the plane as they are drawn, (height, width). */
  classes(volume, remap) {
    const { width, height, stride } = this;
    const found = new Uint16Array(width * height);
    for (let row = 0, i = 0; row < height; row++) {
      for (let c = 0, at = this.start(row); c < width; c++, at += stride) found[i++] = remap[volume[at]];
    }
    return found;
  }

  draw() {
    const { view, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    this.place(ratio);
    const context = canvas.getContext("2d");
    const { remap } = view;
    const reference = this.classes(view.reference, remap);
    const prediction = view.prediction && this.classes(view.prediction, remap);
    this.paintGrey();
    this.paintOver(reference, prediction);
    const target = [this.left, this.top, this.width * this.dx, this.height * this.dy];
    this.layers.forEach((layer, over) => {
      context.imageSmoothingEnabled = !over && this.dx < ratio;
      context.drawImage(layer, ...target);
    });
    context.globalAlpha = view.opacity;
    if (view.show.reference) this.outline(context, reference, view.colours.reference, 2.5 * ratio);
    if (prediction && view.show.prediction) this.outline(context, prediction, view.colours.prediction, 1.3 * ratio);
    context.globalAlpha = 1;
    this.annotate(context, ratio);
    this.tell();
  }

  /* Where the plane lies on the canvas: in its middle, or around the view's centre where it is larger. */
  place(ratio) {
    const { view, canvas } = this;
    const scale = view.scale(ratio) * view.zoom;
    this.dx = scale * view.spacing[this.columns];
    this.dy = scale * view.spacing[this.rows];
    const row = this.turned ? this.height - 1 - view.centre[this.rows] : view.centre[this.rows];
    const along = (room, size, at) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, room / 2 - at)));
    this.left = along(canvas.width, this.width * this.dx, (view.centre[this.columns] + 0.5) * this.dx);
    this.top = along(canvas.height, this.height * this.dy, (row + 0.5) * this.dy);
  }

  layer(number) {
    const layer = this.layers[number];
    layer.width = this.width;
    layer.height = this.height;
    const context = layer.getContext("2d");
    return [context, context.createImageData(this.width, this.height)];
  }

  paintGrey() {
    const { view, width, height, stride } = this;
    const [context, picture] = this.layer(0);
    const pixels = picture.data, image = view.image, size = view.size, tone = view.tone;
    for (let row = 0, i = 0; row < height; row++) {
      for (let c = 0, at = this.start(row); c < width; c++, at += stride, i += 4) {
        if (image) for (let k = 0; k < 3; k++) pixels[i + k] = tone[image[view.colour ? k * size + at : at]];
        pixels[i + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  paintOver(reference, prediction) {
    const { view } = this;
    const [context, picture] = this.layer(1);
    const { show, fill, words: tints } = view;
    const source = fill === "prediction" ? prediction : fill === "reference" ? reference : null;
    const words = new Uint32Array(picture.data.buffer);
    for (let i = 0; i < words.length; i++) {
      const truth = reference[i], found = prediction ? prediction[i] : truth;
      if (show.errors && truth !== found) {
        words[i] = !truth ? tints.prediction : !found ? tints.reference : tints.confused;
      } else if (source && source[i]) words[i] = tints.classes[(source[i] - 1) % tints.classes.length];
    }
    context.putImageData(picture, 0, 0);
  }

  /* The edges between voxels of different labels, as lines between the voxels; runs are one line. */
  outline(context, classes, colour, thickness) {
    const { width, height, left, top, dx, dy } = this;
    const shown = (row, c) => (row < 0 || c < 0 || row >= height || c >= width ? 0 : classes[row * width + c]);
    const along = (lines, length, differs, draw) => {
      for (let line = 0; line <= lines; line++) {
        for (let i = 0, from = -1; i <= length; i++) {
          const edge = i < length && differs(line, i);
          if (edge && from < 0) from = i;
          if (!edge && from >= 0) { draw(line, from, i); from = -1; }
        }
      }
    };
    context.beginPath();
    along(height, width, (row, c) => shown(row, c) !== shown(row - 1, c), (row, a, b) => {
      context.moveTo(left + a * dx, top + row * dy);
      context.lineTo(left + b * dx, top + row * dy);
    });
    along(width, height, (c, row) => shown(row, c) !== shown(row, c - 1), (c, a, b) => {
      context.moveTo(left + c * dx, top + a * dy);
      context.lineTo(left + c * dx, top + b * dy);
    });
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.lineCap = "square";
    context.stroke();
  }

  annotate(context, ratio) {
    const { view, canvas, left, top, dx, dy } = this;
    if (view.cross && !view.single) {
      const row = this.turned ? this.height - 1 - view.cursor[this.rows] : view.cursor[this.rows];
      const x = left + (view.cursor[this.columns] + 0.5) * dx, y = top + (row + 0.5) * dy;
      context.strokeStyle = "rgba(255, 255, 255, 0.45)";
      context.lineWidth = ratio;
      context.beginPath();
      for (const [a, b, c, d] of [[0, y, x - 8 * ratio, y], [x + 8 * ratio, y, canvas.width, y],
        [x, 0, x, y - 8 * ratio], [x, y + 8 * ratio, x, canvas.height]]) {
        context.moveTo(a, b);
        context.lineTo(c, d);
      }
      context.stroke();
    }
    if (!view.anatomical) return;
    const { width, height } = canvas, margin = 12 * ratio;
    context.font = `${13 * ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3 * ratio;
    context.strokeStyle = "#000";
    context.fillStyle = "#fff";
    const places = [[width / 2, margin], [width / 2, height - margin], [margin, height / 2], [width - margin, height / 2]];
    this.edges.forEach((letter, i) => {
      context.strokeText(letter, ...places[i]);
      context.fillText(letter, ...places[i]);
    });
  }

  tell() {
    const at = this.view.cursor[this.fixed];
    const text = `${this.name} ${at + 1} of ${this.count}`;
    this.slider.value = at;
    this.caption.textContent = this.view.single ? "" : text;
    const range = { valuemin: 1, valuemax: this.count, valuenow: at + 1, valuetext: text };
    const values = this.count > 1 ? { label: `${this.name} plane`, ...range } : { label: this.view.readout() };
    for (const [key, value] of Object.entries(values)) this.canvas.setAttribute(`aria-${key}`, value);
  }

  /* The voxel under a pointer, kept inside the volume. */
  under(event) {
    const edge = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / edge.width;
    const inside = (value, n) => Math.min(Math.max(Math.floor(value), 0), n - 1);
    const row = inside(((event.clientY - edge.top) * ratio - this.top) / this.dy, this.height);
    const at = [...this.view.cursor];
    at[this.columns] = inside(((event.clientX - edge.left) * ratio - this.left) / this.dx, this.width);
    at[this.rows] = this.turned ? this.height - 1 - row : row;
    return at;
  }
}
