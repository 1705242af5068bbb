// Numbers as text.

const none = "–";

function short(number, base, units, digits = 3) {
  let unit = 0;
  while (number >= base && unit < units.length - 1) {
    number /= base;
    unit += 1;
  }
  const decimals = number >= 100 ? 0 : number >= 10 ? 1 : 2;
  return number.toFixed(Math.min(decimals, digits - 1)) + units[unit];
}

function count(number) {
  if (number == null) return none;
  if (number < 100000) {
    const decimals = number < 10 && !Number.isInteger(number) ? 1 : 0;
    return number.toLocaleString("en", { maximumFractionDigits: decimals });
  }
  return short(number, 1000, ["", "k", "M", "G", "T"]);
}

function bytes(number) {
  if (number == null) return none;
  if (number < 1000) return number.toFixed(0) + " B";
  return short(number, 1000, [" B", " kB", " MB", " GB", " TB"]);
}

function seconds(number) {
  if (number == null) return none;
  if (number < 0.001) return (number * 1e6).toFixed(0) + " µs";
  if (number < 1) return (number * 1e3).toFixed(number < 0.01 ? 1 : 0) + " ms";
  return number.toFixed(number < 10 ? 1 : 0) + " s";
}

function share(number) {
  return number == null ? none : Math.round(number * 100) + " %";
}

function index(number) {
  return number == null ? none : number.toFixed(3);
}

function duration(total) {
  const days = Math.floor(total / 86400);
  const hours = Math.floor(total / 3600) % 24;
  const minutes = Math.floor(total / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${Math.floor(total % 60)} s`;
  return `${Math.floor(total)} s`;
}
