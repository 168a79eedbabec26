// Before the first paint, so that the chosen theme does not flash. A file, because the policy allows no inline script.
try {
  const theme = localStorage.getItem('entrenar.theme');
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // Storage is off: the system's preference holds.
}
