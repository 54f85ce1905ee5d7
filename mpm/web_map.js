// What the web map does in the browser. Each region is a panel: Bokeh models, and facts as JSON.
"use strict";

const webMap = (() => {
  const panels = new Map();

  const safe = (text) =>
    String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

  const number = (value, digits = 3) =>
    Number.isInteger(value) && Math.abs(value) < 1e6
      ? String(value)
      : Number(value.toPrecision(digits)).toLocaleString("en-GB", {maximumSignificantDigits: digits});

  // Facts are parsed once; `parts` are the Bokeh models of a panel.
  function panelOf(parts) {
    if (!panels.has(parts.region)) {
      panels.set(parts.region, {...parts, ...JSON.parse(parts.facts), unpacked: new Map()});
    }
    return panels.get(parts.region);
  }

  // A layer's codes come as differences along rows and columns, which pack better; both are undone
  // when it is first asked for. Sums wrap at the type's end, as the differences did.
  function codesOf(panel, key) {
    if (panel.unpacked.has(key)) return panel.unpacked.get(key);
    const [steps, width] = [panel.codes.get_column(key), panel.columns];
    const codes = new (steps.dtype === "uint16" ? Uint16Array : Uint8Array)(steps.length);
    for (let k = 0; k < steps.length; k++) {
      const [left, below] = [k % width > 0, k >= width];
      codes[k] = steps[k] + (left ? codes[k - 1] : 0) + (below ? codes[k - width] : 0) -
        (left && below ? codes[k - width - 1] : 0);
    }
    panel.unpacked.set(key, codes);
    return codes;
  }

  const codeAt = (panel, key, cell) => codesOf(panel, key)[cell.row * panel.columns + cell.column];
  const decoded = (layer, code) => (code === 0 ? NaN : layer.low + (code - 1) * layer.step);

  // One value as text, with its units; the first and last code hold all that lies beyond.
  function written(layer, code) {
    if (code === 0) return "missing";
    if (layer.binary) return decoded(layer, code) > 0.5 ? "yes" : "no";
    const beyond = code === 1 && layer.cut_low ? "≤ " : code === 255 && layer.cut_high ? "≥ " : "";
    const times = /^[0-9]/.test(layer.units) ? "× " : "";  // e.g. 0.01 %
    const units = layer.units !== "1" ? ` ${times}${layer.units}` : "";
    return `${beyond}${number(decoded(layer, code))}${units}`;
  }

  // Show one layer in an image, or hide it: the image's array is filled from the 8-bit codes.
  function paint(panel, image, key, opacity) {
    const layer = panel.layers[key];
    image.renderer.visible = image.bar.visible = layer !== undefined;
    if (layer === undefined) return;
    const codes = codesOf(panel, key);
    const values = image.renderer.data_source.get_column("image")[0];
    for (let k = 0; k < codes.length; k++) values[k] = decoded(layer, codes[k]);
    const mapper = image.renderer.glyph.color_mapper;
    mapper.setv({palette: panel.palettes[layer.palette], low: layer.from, high: layer.to});
    image.bar.title = layer.title;
    image.renderer.glyph.global_alpha = opacity;
    image.renderer.data_source.change.emit();
  }

  function update(parts) {
    const panel = panelOf(parts);
    const map = {renderer: panel.map_image, bar: panel.map_bar};
    const evidence = {renderer: panel.evidence_image, bar: panel.evidence_bar};
    paint(panel, map, panel.map_choice.value, panel.opacity.value);
    paint(panel, evidence, panel.evidence_choice.value, 1);
    panel.switched.forEach((names, k) => {
      for (const name of names) panel[name].visible = panel.switches.active.includes(k);
    });
  }

  // The cell below a place (km), or null outside the grid.
  function cellAt(panel, x, y) {
    const column = Math.floor((x - panel.west) / panel.cell_km);
    const row = Math.floor((y - panel.south) / panel.cell_km);
    const inside = column >= 0 && column < panel.columns && row >= 0 && row < panel.rows;
    return inside ? {row, column} : null;
  }

  // Longitude and latitude between nodes whose coordinates are known, in straight lines.
  function degrees(panel, x, y) {
    const {longitude, latitude, step, rows, columns} = panel.nodes;
    const across = Math.min(Math.max((x - panel.west) / step[0], 0), columns - 1.000001);
    const up = Math.min(Math.max((y - panel.south) / step[1], 0), rows - 1.000001);
    const [c, r] = [Math.floor(across), Math.floor(up)];
    const [u, v] = [across - c, up - r];
    const at = (values) => {
      const [a, b] = [r * columns + c, (r + 1) * columns + c];
      const [sw, se, nw, ne] = [a, a + 1, b, b + 1].map((k) => values[k] ?? NaN);
      return (sw * (1 - u) + se * u) * (1 - v) + (nw * (1 - u) + ne * u) * v;
    };
    const east = ((((at(longitude) + 180) % 360) + 360) % 360) - 180;
    const north = at(latitude);
    if (Number.isNaN(north)) return "beyond the projection";
    return `${Math.abs(east).toFixed(2)}° ${east < 0 ? "W" : "E"}, ` +
      `${Math.abs(north).toFixed(2)}° ${north < 0 ? "S" : "N"}`;
  }

  const place = (panel, x, y) =>
    `${degrees(panel, x, y)} · easting ${x.toFixed(0)} km, northing ${y.toFixed(0)} km`;

  function hover(parts, event) {
    const panel = panelOf(parts);
    const cell = cellAt(panel, event.x, event.y);
    if (cell === null) return;
    const shown = [panel.map_choice.value, panel.evidence_choice.value]
      .filter((key) => panel.layers[key] !== undefined)
      .map((key) => `${safe(panel.layers[key].name)} ${written(panel.layers[key], codeAt(panel, key, cell))}`);
    panel.pointer.text = [place(panel, event.x, event.y), ...shown].join(" · ");
  }

  // Share of the region's predicted cells that are at least as likely as a code, in per cent.
  function share(panel, code) {
    const codes = codesOf(panel, "likelihood");
    let [above, all] = [0, 0];
    for (const other of codes) {
      if (other > 0) all += 1;
      if (other >= code) above += 1;
    }
    return (100 * above) / all;
  }

  function nearestDeposit(panel, event) {
    const [x, y] = [panel.deposits.get_column("x"), panel.deposits.get_column("y")];
    const {x_range, y_range, inner_width, inner_height} = panel.figure;
    const [across, up] = [inner_width / (x_range.end - x_range.start), inner_height / (y_range.end - y_range.start)];
    let [best, away] = [-1, 9];  // pixels
    for (let k = 0; k < x.length; k++) {
      const distance = Math.hypot((x[k] - event.x) * across, (y[k] - event.y) * up);
      if (distance < away) [best, away] = [k, distance];
    }
    return panel.deposits_shown.visible ? best : -1;
  }

  function leading(panel, cell) {
    const rows = [];
    for (let k = 0; k < panel.leading; k++) {
      const layer = codeAt(panel, `leading_${k}`, cell);
      if (layer === 0) continue;
      const value = ((codeAt(panel, `contribution_${k}`, cell) - 128) / 127) * panel.largest;
      rows.push(`${safe(panel.origins[layer - 1])} (${value < 0 ? "against" : "for"}, ${value < 0 ? "−" : "+"}${number(Math.abs(value), 2)})`);
    }
    return rows.length ? rows.join(", ") : "not explained here";
  }

  // The class of a cell, of the planes of one layer: without evidence it is missing, not unsaid.
  function classAt(panel, keys, cell) {
    const codes = keys.map((key) => codeAt(panel, key, cell));
    if (codes.every((code) => code === 0)) return "missing";
    const own = keys.findIndex((key, k) => decoded(panel.layers[key], codes[k]) > 0.5);
    return own < 0 ? "none of the classes" : panel.layers[keys[own]].name.split(": ")[1];
  }

  function evidenceTable(panel, cell) {
    const rows = [];
    for (const [group, keys] of panel.groups) {
      rows.push(`<tr><th colspan="2">${safe(group)}</th></tr>`);
      const told = new Set();  // layers of classes, each in one row
      for (const key of keys) {
        const layer = panel.layers[key];
        if (layer.of && told.has(layer.of)) continue;
        if (layer.of) told.add(layer.of);
        const value = layer.of
          ? classAt(panel, keys.filter((other) => panel.layers[other].of === layer.of), cell)
          : written(layer, codeAt(panel, key, cell));
        const name = layer.of ? layer.name.split(": ")[0] : layer.name;
        rows.push(`<tr><td>${safe(name)}</td><td>${safe(value)}</td></tr>`);
      }
    }
    return `<table>${rows.join("")}</table>`;
  }

  function click(parts, event) {
    const panel = panelOf(parts);
    const deposit = nearestDeposit(panel, event);
    const column = (name) => panel.deposits.get_column(name)[deposit];
    const [x, y] = deposit < 0 ? [event.x, event.y] : [column("x"), column("y")];
    const cell = cellAt(panel, x, y);
    if (cell === null) return;
    const lines = [];
    if (deposit >= 0) {
      const type = column("type") ? ` (${safe(column("type"))})` : "";
      lines.push(`<h2>${safe(column("name"))}</h2><p>known deposit${type}</p>`);
    }
    lines.push(`<p>${place(panel, x, y)}</p>`);
    const target = codeAt(panel, "target", cell);
    if (target > 0) lines.push(`<p><b>Target ${target}</b>: ${safe(panel.targets[target - 1])}</p>`);
    for (const key of panel.maps) {
      const code = codeAt(panel, key, cell);
      const rank = key === "likelihood" && code > 0
        ? `, among the most likely ${number(share(panel, code), 2)} % of the region` : "";
      lines.push(`<p>${safe(panel.layers[key].name)}: <b>${written(panel.layers[key], code)}</b>${rank}</p>`);
    }
    lines.push(`<p>Leading layers: ${leading(panel, cell)}</p>`, evidenceTable(panel, cell));
    panel.card.text = lines.join("");
  }

  return {update, hover, click};
})();
