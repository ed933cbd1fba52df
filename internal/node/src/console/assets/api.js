// Asking the node. Everything here is GET, and everything comes from where the page came from.

const PATIENCE_MS = 8_000;

/** What `/api/v1` + path answers; an Error with words for a person if it cannot be had. */
export async function get(path) {
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  } catch {
    throw new Error("This node does not answer.");
  }
  const text = await response.text();
  if (response.ok) return JSON.parse(text);
  throw new Error(words(text) ?? `This node answered ${response.status}.`);
}

function words(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text.trim() || null;
  }
}

/** The query of a path, without what is empty. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return text ? `?${text}` : "";
}
