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

  // Everything that is folded is opened before printing.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
})();
