// Making elements, and changing those that are there into others without losing focus, selection or scrolling.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "oninput", "onsubmit", "onchange"];

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** An HTML element. */
export function h(name, properties, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** An element of a drawing. */
export function svg(name, properties, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

/** Makes `target` have what `fresh` has. Elements of the same place and kind stay what they are. */
export function morph(target, fresh) {
  attributes(target, fresh);
  for (const handler of HANDLERS) target[handler] = fresh[handler];
  const wanted = [...fresh.childNodes];
  const found = [...target.childNodes];
  wanted.forEach((child, place) => {
    const former = found[place];
    if (!former) target.append(child);
    else if (!isSame(former, child)) former.replaceWith(child);
    else if (former.nodeType === Node.TEXT_NODE) {
      if (former.data !== child.data) former.data = child.data;
    } else morph(former, child);
  });
  found.slice(wanted.length).forEach((child) => child.remove());
}

function isSame(one, other) {
  return one.nodeName === other.nodeName && one.id === other.id && one.dataset?.key === other.dataset?.key;
}

function attributes(target, fresh) {
  for (const { name } of [...target.attributes]) {
    // What a person has opened stays open.
    if (!fresh.hasAttribute(name) && !["open", "style"].includes(name)) target.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "style" && target.getAttribute(name) !== value) target.setAttribute(name, value);
  }
  // As an attribute the page's policy would not let it through.
  if (target.style.cssText !== fresh.style.cssText) target.style.cssText = fresh.style.cssText;
}

/** Sets a length that a style sheet uses; a style attribute would not be let through. */
export function measure(element, name, value) {
  element.style.setProperty(name, value);
  return element;
}
