"use strict";
const REPORT = JSON.parse(document.getElementById("report").textContent);
const byId = (id) => document.getElementById(id);

/* An element with text (never markup), attributes and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function fillSelect(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value }, text)));
}

function shownNumber(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size >= 100) return String(value);
  return size >= 100 ? value.toFixed(1) : value.toFixed(size >= 10 ? 2 : 4);
}

/* The inverse of medseg's pack: Base64, gzip, byte planes, running sums that wrap around. */
async function unpack(packed) {
  const binary = atob(byId(packed.id).textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (packed.bytes === 1) {
    for (let i = 1; i < planes.length; i++) planes[i] += planes[i - 1];
    return planes;
  }
  const count = planes.length / 2;
  const values = new Uint16Array(count);
  for (let i = 0, sum = 0; i < count; i++) {
    sum = (sum + planes[i] + 256 * planes[count + i]) & 65535;
    values[i] = sum;
  }
  return values;
}

/* The value below which a share of sorted numbers lies, linear between them. */
const quantile = (sorted, share) => {
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
};
