// The words of the glossary show what they mean under the pointer and when the keyboard reaches them; Escape hides it.
// What is wider than its box can be scrolled with the arrow keys, and fades at the right as long as there is more.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const told = document.getElementById("zb-terms");
  if (told) {
    const terms = JSON.parse(told.textContent), tip = document.createElement("div");
    let shown = null, leaving = 0;
    Object.assign(tip, { id: "zb-tip", hidden: true });
    tip.setAttribute("role", "tooltip");
    document.querySelector("article").append(tip);
    const hide = () => {
      shown?.removeAttribute("aria-describedby");
      shown = null;
      tip.hidden = true;
    };
    const hideSoon = () => { leaving = setTimeout(hide, 200); }; // there is time to move onto it
    const show = (link) => {
      clearTimeout(leaving);
      if (link === shown) return;
      hide();
      shown = link;
      tip.textContent = terms[link.hash.slice(1)];
      tip.hidden = false;
      link.setAttribute("aria-describedby", tip.id);
      put(link);
    };
    const put = (link) => {
      const box = link.getClientRects()[0], wide = document.documentElement.clientWidth, gap = 8;
      tip.style.left = `${Math.max(gap, Math.min(box.left, wide - tip.offsetWidth - gap))}px`;
      const below = box.bottom + 4;
      tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : Math.max(gap, box.top - tip.offsetHeight - 4)}px`;
    };
    for (const link of document.querySelectorAll('article a[href*="glossary.html#term-"]')) {
      if (!(link.hash.slice(1) in terms)) continue;
      link.addEventListener("pointerenter", () => show(link));
      link.addEventListener("focus", () => show(link));
      link.addEventListener("pointerleave", hideSoon);
      link.addEventListener("blur", hide);
    }
    tip.addEventListener("pointerenter", () => clearTimeout(leaving));
    tip.addEventListener("pointerleave", hideSoon);
    addEventListener("keydown", (event) => event.key === "Escape" && hide());
    addEventListener("scroll", () => shown && put(shown), { passive: true });
  }
  const boxes = document.querySelectorAll("article :is(pre, .cell_output, .output, .pst-scrollable-table-container, div.math, .zb-whole)");
  const fade = (box) => box.classList.toggle("zb-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
  const reach = () => {
    for (const box of boxes) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
      fade(box);
    }
  };
  for (const box of boxes) box.addEventListener("scroll", () => fade(box), { passive: true });
  if (typeof Search !== "undefined") { // the search shows what a page says, not the names of its buttons
    const told = Search.htmlToText;
    Search.htmlToText = (text, anchor) => {
      const page = new DOMParser().parseFromString(text, "text/html");
      const around = ".bd-header-article, .bd-sidebar-secondary, .prev-next-footer, #jb-print-docs-body, nav, footer";
      page.querySelectorAll(around).forEach((part) => part.remove());
      return told(page.documentElement.outerHTML, anchor);
    };
  }
  addEventListener("load", reach);
  addEventListener("resize", reach);
  addEventListener("beforeprint", () => document.querySelectorAll("article details:not(.zb-log)").forEach((fold) => { fold.open = true; }));
});
