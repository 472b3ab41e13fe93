"use strict";
(() => {
  const table = document.getElementById("cells");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const search = document.getElementById("search");
  const filters = [...document.querySelectorAll("[data-filter]")];
  const collator = new Intl.Collator("en", { numeric: true });

  const applyFilters = () => {
    const query = search.value.trim().toLowerCase();
    for (const row of rows) {
      const passes = filters.every((filter) => !filter.value || row.dataset[filter.dataset.filter] === filter.value);
      row.hidden = !(passes && row.textContent.toLowerCase().includes(query));
    }
    const visible = rows.filter((row) => !row.hidden).length;
    document.getElementById("count").textContent = `${visible} of ${rows.length} cells`;
  };

  // Unknown values come last in both orders.
  const compareBy = (index, isNumber, sign) => (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[index].dataset.sort);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (isNumber ? Number(x) - Number(y) : collator.compare(x, y));
  };

  const sortBy = (header) => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...rows.sort(compareBy(header.cellIndex, header.classList.contains("number"), ascending ? 1 : -1)));
  };

  for (const header of table.tHead.rows[0].cells) {
    if ("unsorted" in header.dataset) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header));
    header.append(button);
  }

  search.addEventListener("input", applyFilters);
  for (const filter of filters) filter.addEventListener("change", applyFilters);
  document.getElementById("reset").addEventListener("click", () => {
    search.value = "";
    for (const filter of filters) filter.value = "";
    applyFilters();
  });
  document.querySelector(".controls").hidden = false;
  applyFilters();

  // One strategy is brought out in all charts: while the pointer or the focus is on it, or for good by its button.
  const chips = [...document.querySelectorAll(".chips button")];
  const marks = [...document.querySelectorAll("[data-mark]")];
  let pinned = "";
  let current = "";
  const bringOut = (name) => {
    if (name === current) return;
    current = name;
    document.documentElement.classList.toggle("focused", name !== "");
    for (const each of marks) each.classList.toggle("on", each.dataset.mark === name);
    const chip = chips.find((each) => each.dataset.mark === name);
    if (chip) document.documentElement.style.setProperty("--own", chip.style.getPropertyValue("--chip"));
  };
  const pin = (name) => {
    pinned = name;
    for (const chip of chips) chip.setAttribute("aria-pressed", String(chip.dataset.mark === name));
    bringOut(name);
  };
  const follow = (event) => bringOut(event.target.closest?.("[data-mark]")?.dataset.mark ?? pinned);
  if (chips.length) {
    for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, follow);
    for (const chip of chips) {
      chip.addEventListener("click", () => pin(pinned === chip.dataset.mark ? "" : chip.dataset.mark));
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") pin(""); });
    document.querySelector(".chips").hidden = false;
  }

  // Some browsers refuse the clipboard to pages that are opened from a file. Then the text is selected instead.
  for (const button of document.querySelectorAll("[data-copy]")) {
    const source = document.getElementById(button.dataset.copy);
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  // What is folded is opened before printing, but for the charts' tables: the table of cells has their numbers.
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details:not(figure *)")) each.open = true;
  });
})();
