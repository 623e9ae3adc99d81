// The page is complete without this: it only lets the rows of a table be put in another order.
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[column]?.dataset.value ?? row.cells[column]?.textContent ?? "None";
      const number = (text) => (text === "None" ? Infinity : Number(text));
      body.append(...[...body.rows].sort((one, other) => {
        const [a, b] = [key(one), key(other)];
        const order = Number.isNaN(number(a)) || Number.isNaN(number(b))
          ? a.localeCompare(b, undefined, { numeric: true })
          : number(a) - number(b);
        return rising ? order : -order;
      }));
    });
  });
});
