// Before anything is drawn, hence no module: the theme that was chosen here last.
try {
  const chosen = localStorage.getItem("scamp-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is switched off: the theme is the system's.
}
