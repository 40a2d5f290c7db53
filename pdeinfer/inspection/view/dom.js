// Finds and makes elements.

export const $ = (id) => document.getElementById(id);

/** Return an element with properties and the children that are not null; names with "-" and "role" are attributes. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}
