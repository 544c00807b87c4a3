// Sentences move from where they were to where they now stand ("FLIP": first, last, invert, play).
// Gradio puts a new element in the place of `element` now and then; what is around it stays.
const table = element.closest("#so-table");
const places = new Map();
let story = null;

function moved() {
  const list = table.querySelector(".so-list");
  const before = new Map(places);
  const same = list !== null && list.dataset.story === story;
  story = list === null ? null : list.dataset.story;
  places.clear();
  for (const item of table.querySelectorAll(".so-item")) {
    const place = { left: item.offsetLeft, top: item.offsetTop };
    places.set(item.dataset.sentence, place);
    const old = before.get(item.dataset.sentence);
    if (!same || !old || window.matchMedia("(prefers-reduced-motion: reduce)").matches) continue;
    const offset = `translate(${old.left - place.left}px, ${old.top - place.top}px)`;
    item.animate([{ transform: offset }, { transform: "none" }], { duration: 700, easing: "ease-in-out" });
  }
}

new MutationObserver(moved).observe(table, { childList: true, subtree: true });
moved();
