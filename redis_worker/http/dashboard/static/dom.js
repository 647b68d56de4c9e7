// Elements from plain values, and a morph that changes only what differs: focus, selection and open details stay.
// Text is only ever set as text: there is no way from a payload to markup.

export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function show(place, ...nodes) {
  const wanted = place.cloneNode(false);
  wanted.append(...nodes.flat(3).filter(Boolean));
  morphChildren(place, wanted);
}

function morph(from, to) {
  if (from.nodeType === Node.TEXT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (to.hasAttribute("data-own")) return; // its content belongs to somebody else, as a chart's does
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && name !== "open" && name !== "style") from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value && name !== "open") from.setAttribute(name, value);
  }
  morphChildren(from, to);
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-node") : null);

function morphChildren(from, to) {
  const keyed = new Map();
  for (const child of from.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let place = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted);
    let found = key ? keyed.get(key) : place;
    if (found && !key && (keyOf(found) || found.nodeName !== wanted.nodeName)) found = null;
    if (!found || found.nodeName !== wanted.nodeName) {
      from.insertBefore(wanted, place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else from.insertBefore(found, place);
    morph(found, wanted);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// Numbers and times for people.

export const count = (number) => (number ?? 0).toLocaleString("en");

export function rate(number) {
  return number >= 100 ? count(Math.round(number)) : String(Math.round((number ?? 0) * 10) / 10);
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1000)} ms`;
  if (seconds < 100) return `${digits(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const digits = (number) => (number < 10 ? Math.round(number * 10) / 10 : Math.round(number));

export function when(at, now) {
  if (!at) return "–";
  if (Math.abs(now - at) < 1) return "now";
  return at > now ? `in ${span(at - now)}` : `${span(now - at)} ago`;
}

export const clock = (at) => new Date(at * 1000).toLocaleString("sv");

export function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${digits(bytes / 1024)} KiB` : `${digits(bytes / 1048576)} MiB`;
}
