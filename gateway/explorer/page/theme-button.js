// The button that changes between the system's theme, light and dark, and remembers it.

const ORDER = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀\uFE0E", dark: "☾\uFE0E" };
const root = document.documentElement;

/** @param {HTMLButtonElement} button */
export function themeButton(button) {
  const show = () => {
    const now = root.dataset.theme ?? "auto";
    button.textContent = SIGNS[now];
    button.setAttribute("aria-label", `Theme: ${now}`);
    button.title = `Theme: ${now}`;
  };
  button.addEventListener("click", () => {
    const now = root.dataset.theme ?? "auto";
    choose(ORDER[(ORDER.indexOf(now) + 1) % ORDER.length]);
    show();
  });
  show();
}

/** @param {string} theme */
function choose(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    if (theme === "auto") localStorage.removeItem("scamp-theme");
    else localStorage.setItem("scamp-theme", theme);
  } catch {
    // Storage is switched off: it holds until the page is left.
  }
}
