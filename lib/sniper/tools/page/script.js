"use strict";
// Everything from the data goes into the page as text or as numbers of attributes, never as HTML.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const [KIND, X, Y, W, H, CLASS, SCORE, LEVELS, OTHER] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const [RIGHT, MISSED] = [0, 1];
  const byId = (id) => document.getElementById(id);

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Areas that are wider than the page scroll by themselves: the keyboard has to get there.
  function watchWideAreas() {
    const areas = document.querySelectorAll(".wide");
    const update = (area) => {
      const scrolls = area.scrollWidth > area.clientWidth + 1;
      for (const [key, value] of [["tabindex", "0"], ["role", "region"],
        ["aria-label", area.dataset.label]]) {
        if (scrolls) area.setAttribute(key, value);
        else area.removeAttribute(key);
      }
    };
    const observer = new ResizeObserver((entries) => entries.forEach((e) => update(e.target)));
    areas.forEach((area) => observer.observe(area));
  }

  function watchSections() {
    const links = new Map();
    for (const link of document.querySelectorAll("nav a")) links.set(link.hash.slice(1), link);
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        const link = links.get(entry.target.id);
        if (link) link.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -75% 0px" });
    document.querySelectorAll("main > section").forEach((part) => observer.observe(part));
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    table.tHead.querySelectorAll("th").forEach((head, column) => {
      const button = element("button", { type: "button" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
        table.tHead.querySelectorAll("th").forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const value = (row) => {
          const cell = row.cells[column];
          return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
        };
        const compare = (a, b) => {
          const [one, other] = [value(a), value(b)];
          if (typeof one === "number") return sign * (one - other);
          return sign * one.localeCompare(other);
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }

  function makeTiles(data) {
    const grid = byId("tiles");
    const filters = { cause: byId("filter-cause"), class: byId("filter-class"),
      size: byId("filter-size"), level: byId("filter-level"), order: byId("filter-order"),
      score: byId("filter-score") };
    const first = filters.score.value;
    let visible = [];
    let wanted = {};

    const classes = Object.entries(data.classes).sort((a, b) => a[1].localeCompare(b[1]));
    for (const [key, text] of classes) {
      filters.class.append(element("option", { value: key }, text));
    }

    const side = (mark) => Math.sqrt(mark[W] * mark[H]);
    // At a score: whether a mark is an error, and whether there is anything to see of it.
    const isError = (mark, score) => {
      if (mark[KIND] === MISSED) return mark[SCORE] < score;
      return mark[KIND] !== RIGHT && mark[SCORE] >= score;
    };
    const isShown = (mark, score) => {
      return mark[KIND] === MISSED ? mark[SCORE] < score : mark[SCORE] >= score;
    };

    function fits(mark) {
      if (!isError(mark, wanted.score)) return false;
      if (wanted.cause && mark[KIND] !== wanted.cause) return false;
      if (wanted.class && mark[CLASS] !== wanted.class && mark[OTHER] !== wanted.class) return false;
      if (wanted.level !== null && !((mark[LEVELS] >> wanted.level) & 1)) return false;
      if (wanted.size !== null) {
        const [low, high] = data.sizes[wanted.size];
        const px = side(mark);
        if (px < low || (high !== null && px >= high)) return false;
      }
      return true;
    }

    function words(mark) {
      const kind = data.kinds[mark[KIND]][1];
      const name = data.classes[mark[CLASS]];
      if (mark[KIND] === MISSED) return `${kind}: ${name}`;
      const other = mark[OTHER] ? `, is ${data.classes[mark[OTHER]]}` : "";
      return `${kind}: ${name} ${mark[SCORE].toFixed(2)}${other}`;
    }

    // With numbers of marks (a Map) these are written at their boxes, in px of the image.
    function rectangles(svg, tile, numbers, size) {
      const shown = tile.m.filter((mark) => isShown(mark, wanted.score));
      shown.sort((a, b) => (a[KIND] === RIGHT ? 0 : 1) - (b[KIND] === RIGHT ? 0 : 1));
      const parts = [];
      for (const mark of shown) {
        const place = { x: mark[X], y: mark[Y], width: mark[W], height: mark[H] };
        const dim = mark[KIND] === RIGHT || fits(mark) ? "" : " dim";
        const kind = data.kinds[mark[KIND]][0];
        if (mark[KIND] !== RIGHT) parts.push(drawn("rect", { ...place, class: `mark halo${dim}` }));
        parts.push(drawn("rect", { ...place, class: `mark k-${kind}${dim}` }));
        if (numbers && numbers.has(mark)) {
          const y = Math.max(mark[Y], 0) + size;
          const text = drawn("text", { x: Math.max(mark[X], 0) + size / 4, y }, numbers.get(mark));
          text.style.fontSize = `${size}px`;
          text.style.strokeWidth = `${size / 4}px`;
          parts.push(text);
        }
      }
      svg.replaceChildren(...parts);
    }

    function picture(tile, alt) {
      const wide = tile.w / tile.h >= 4 / 3;
      const box = element("span", { class: `fit ${wide ? "broad" : "tall"}` });
      box.style.aspectRatio = `${tile.w} / ${tile.h}`;
      if (tile.u) {
        box.append(element("img", { src: tile.u, alt, width: tile.p[0], height: tile.p[1],
          loading: "lazy", decoding: "async" }));
      }
      const svg = drawn("svg", { viewBox: `0 0 ${tile.w} ${tile.h}`, preserveAspectRatio: "none",
        "aria-hidden": "true" });
      box.append(svg);
      return [box, svg];
    }

    const tiles = data.tiles.map((tile, index) => {
      const [box, svg] = picture(tile, "");
      const text = element("span", { class: "text" });
      const button = element("button", { type: "button" },
        element("span", { class: "overlay" }, box), text);
      const item = element("li", { "data-index": index }, button);
      const made = { ...tile, index, svg, text, item, button, found: 0, best: 0, stale: true };
      button.addEventListener("click", () => open(made));
      return made;
    });

    // Marks are drawn when a tile comes near the window: a thousand of them at once would be slow.
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const tile = tiles[Number(entry.target.dataset.index)];
        tile.near = entry.isIntersecting;
        if (tile.near && tile.stale) redraw(tile);
      }
    }, { rootMargin: "600px 0px" });
    tiles.forEach((tile) => near.observe(tile.item));

    function redraw(tile) {
      tile.stale = false;
      rectangles(tile.svg, tile);
    }

    function describe(tile) {
      const counts = new Map();
      for (const mark of tile.m) {
        if (fits(mark)) counts.set(mark[KIND], (counts.get(mark[KIND]) || 0) + 1);
      }
      const parts = [...counts].sort((a, b) => b[1] - a[1])
        .map(([kind, number]) => `${number} ${data.kinds[kind][1]}`);
      tile.text.replaceChildren(element("b", {}, tile.n), parts.join(", "));
    }

    function update() {
      const number = (field) => (field.value === "" ? null : Number(field.value));
      wanted = { cause: number(filters.cause), class: number(filters.class),
        size: number(filters.size), level: number(filters.level), score: Number(filters.score.value) };
      byId("score-text").textContent = wanted.score.toFixed(3);
      let errors = 0;
      for (const tile of tiles) {
        tile.found = 0;
        tile.best = -1;
        for (const mark of tile.m) {
          if (!fits(mark)) continue;
          tile.found += 1;
          if (mark[KIND] !== MISSED) tile.best = Math.max(tile.best, mark[SCORE]);
        }
        tile.stale = true;
        errors += tile.found;
      }
      visible = tiles.filter((tile) => tile.found > 0);
      const orders = { errors: (a, b) => b.found - a.found || a.index - b.index,
        score: (a, b) => b.best - a.best || a.index - b.index,
        name: (a, b) => a.n.localeCompare(b.n) || a.index - b.index };
      visible.sort(orders[filters.order.value]);
      visible.forEach(describe);
      grid.replaceChildren(...visible.map((tile) => tile.item));
      visible.filter((tile) => tile.near).forEach(redraw);
      const images = tiles.length === 1 ? "image" : "images";
      byId("tile-count").textContent =
        `${visible.length} of ${tiles.length} ${images}, ${errors} errors that fit.`;
    }

    let timer = 0;
    function soon() {
      clearTimeout(timer);
      timer = setTimeout(update, 60);
    }

    const dialog = byId("dialog");
    let opened = null;
    function open(tile) {
      opened = tile;
      byId("dialog-title").textContent = tile.n;
      const [box, svg] = picture(tile, `${tile.n} with its errors`);
      const listed = tile.m.filter(fits).sort((a, b) => b[SCORE] - a[SCORE]);
      const numbers = new Map(listed.map((mark, place) => [mark, String(place + 1)]));
      const limit = Math.min(window.innerHeight * 0.62 * (tile.w / tile.h), 1060);
      // Letters of 13 px on the screen.
      const shown = Math.min(limit, window.innerWidth * 0.88);
      rectangles(svg, tile, numbers, 13 * (tile.w / shown));
      box.style.width = `min(100%, ${Math.round(limit)}px)`;
      box.className = "fit";
      const rows = listed.map((mark) =>
        element("tr", {}, element("td", { class: "number" }, numbers.get(mark)),
          element("th", { scope: "row" }, words(mark)),
          element("td", { class: "number" }, side(mark).toFixed(0))));
      const head = element("tr", {}, ...["number", "error, score", "size, px"].map((text) =>
        element("th", { scope: "col" }, text)));
      const table = element("table", {}, element("caption", {}, "Errors that fit the filters"),
        element("thead", {}, head), element("tbody", {}, ...rows));
      byId("dialog-body").replaceChildren(element("div", { class: "overlay" }, box), table);
      const place = visible.indexOf(tile);
      byId("dialog-previous").disabled = place <= 0;
      byId("dialog-next").disabled = place < 0 || place >= visible.length - 1;
      if (!dialog.open) dialog.showModal();
    }
    function move(step) {
      const next = visible[visible.indexOf(opened) + step];
      if (next) open(next);
    }
    byId("dialog-close").addEventListener("click", () => dialog.close());
    byId("dialog-previous").addEventListener("click", () => move(-1));
    byId("dialog-next").addEventListener("click", () => move(1));
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") move(-1);
      if (event.key === "ArrowRight") move(1);
    });
    // The place among the tiles is kept, also after a walk through the pictures.
    dialog.addEventListener("close", () => opened && opened.button.focus());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("input", soon);
    byId("filter-reset").addEventListener("click", () => {
      for (const field of Object.values(filters)) {
        if (field === filters.score) field.value = first;
        else field.selectedIndex = 0;
      }
      update();
    });
    update();
  }

  watchWideAreas();
  watchSections();
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  const block = byId("tiles-data");
  if (block && byId("tiles")) makeTiles(JSON.parse(block.textContent));
})();
