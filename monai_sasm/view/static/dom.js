// Elements of the page, and time.

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

export const later = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
