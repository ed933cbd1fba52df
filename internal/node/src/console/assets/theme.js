// Light, dark, or as the system has it. No module, so that it runs before anything is shown in the wrong colours.
{
  const CHOICES = ["auto", "light", "dark"];
  const WORDS = { auto: "Auto", light: "Light", dark: "Dark" };
  const LABELS = { auto: "Theme: auto, as the system", light: "Theme: light", dark: "Theme: dark" };
  let chosen = "auto";

  const apply = (choice) => {
    chosen = choice;
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  };

  const label = (button) => {
    button.textContent = WORDS[chosen];
    button.setAttribute("aria-label", LABELS[chosen]);
    button.title = LABELS[chosen];
  };

  try {
    const kept = localStorage.getItem("theme");
    apply(CHOICES.includes(kept) ? kept : "auto");
  } catch {
    // A browser that keeps nothing.
  }

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    label(button);
    button.addEventListener("click", () => {
      apply(CHOICES[(CHOICES.indexOf(chosen) + 1) % CHOICES.length]);
      label(button);
      try {
        localStorage.setItem("theme", chosen);
      } catch {
        // It holds for this page, then.
      }
    });
  });
}
