// Numbers, sizes and times for people.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function number(value) {
  return whole.format(value);
}

/** A rate; null: it is not known yet. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 10) return value.toFixed(1);
  return short.format(Math.round(value));
}

export function bytes(value) {
  let unit = 0;
  let size = value;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

export function percent(part, all) {
  return all > 0 ? `${Math.round((100 * part) / all)} %` : "–";
}

export function count(value, noun) {
  return `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
}

export function duration(ms) {
  if (!ms) return "for ever";
  const steps = [[86_400_000, "day"], [3_600_000, "hour"], [60_000, "minute"], [1_000, "second"]];
  const [size, noun] = steps.find(([least]) => ms >= least) ?? [1, "millisecond"];
  return count(Math.round(ms / size), noun);
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

export function moment(ms) {
  return new Date(ms).toISOString();
}

export function ago(ms, now = Date.now()) {
  const passed = Math.max(0, now - ms);
  return passed < 2_000 ? "now" : `${duration(passed)} ago`;
}
