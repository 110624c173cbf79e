// Numbers as files of comma-separated values (RFC 4180).

function field(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function commaSeparated(rows) {
  return rows.map((row) => `${row.map(field).join(",")}\r\n`).join("");
}

function save(name, rows) {
  const blob = new Blob([commaSeparated(rows)], { type: "text/csv;charset=utf-8" });
  const link = element("a", { href: URL.createObjectURL(blob), download: `${name}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  say(`${name}.csv saved`);
}

// `rows` is asked for when the button is pressed.
function saveButton(text, name, rows) {
  const press = () => save(typeof name === "function" ? name() : name, rows());
  return button(`Save ${text} (CSV)`, press, { class: "save" });
}

// As many digits as a float32 has.
function digits(x) {
  return Number.isFinite(x) ? Number(x.toPrecision(7)) : x;
}
