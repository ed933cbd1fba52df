// Light, dark, or as the system has it. Runs first, so that nothing is shown in the wrong colours.

const CHOICES = ["auto", "light", "dark"];
const WORDS = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const button = document.getElementById("theme");

function chosen() {
  try {
    const kept = localStorage.getItem("theme");
    return CHOICES.includes(kept) ? kept : "auto";
  } catch {
    return "auto"; // a browser that keeps nothing
  }
}

function apply(choice) {
  if (choice === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  button.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[choice];
  button.setAttribute("aria-label", WORDS[choice]);
  button.title = WORDS[choice];
}

button.addEventListener("click", () => {
  const next = CHOICES[(CHOICES.indexOf(chosen()) + 1) % CHOICES.length];
  try {
    localStorage.setItem("theme", next);
  } catch {
    // It holds for this page, then.
  }
  apply(next);
});

apply(chosen());
