// Every element of the page is made here. What it says goes in as text, never as markup, so nothing
// that stands in a text can become part of the page.

const SVG = "http://www.w3.org/2000/svg";

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, handle] of Object.entries(value)) made.addEventListener(event, handle);
    } else if (value !== false && value !== null && value !== undefined) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...children.flat().filter((child) => child !== null));
  return made;
}

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

let lastId = 0;

function newId(name) {
  lastId += 1;
  return `${name}-${lastId}`;
}

// A control with its label before it.
function labelled(text, control) {
  control.id ||= newId("control");
  return element("span", { class: "labelled" }, element("label", { for: control.id }, text), control);
}

function chooser(options, chosen, change) {
  const made = element("select", { on: { change: () => change(made.value) } });
  for (const [value, text] of options) made.append(element("option", { value }, text));
  made.value = chosen;
  return made;
}

// Some choices of which one holds, side by side.
function choices(legend, options, chosen, change) {
  const name = newId("choice");
  const made = element("fieldset", { class: "choices" }, element("legend", {}, legend));
  for (const [value, text] of options) {
    const input = element("input", { type: "radio", name, value, id: newId("radio") });
    input.checked = value === chosen;
    input.addEventListener("change", () => change(value));
    made.append(element("span", {}, input, element("label", { for: input.id }, text)));
  }
  return made;
}

function choose(fieldset, value) {
  for (const input of fieldset.querySelectorAll("input")) input.checked = input.value === value;
}

function button(text, press, attributes = {}) {
  return element("button", { type: "button", on: { click: press }, ...attributes }, text);
}

// A table in a box of its own that can be moved sideways where the window is narrow.
function table(caption, heads, rows) {
  const head = element("tr", {}, heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...others]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, first),
      others.map((cell) => element("td", {}, cell)),
    ),
  );
  return element(
    "div",
    { class: "wide", role: "region", "aria-label": caption, tabindex: 0 },
    element(
      "table",
      {},
      element("caption", {}, caption),
      element("thead", {}, head),
      element("tbody", {}, body),
    ),
  );
}

// What a screen reader says, once the reader has stopped for a moment.
let waiting = 0;

function say(text) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    document.getElementById("said").textContent = text;
  }, 150);
}
