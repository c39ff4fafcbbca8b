/**
 * Under the POSIX locale Chromium says `navigator.language === "en-US@posix"`, which is no language tag, and
 * uPlot throws RangeError when it is imported. This module stands before every import of uPlot.
 */
export function isLanguageTag(tag: string): boolean {
  try {
    new Intl.NumberFormat(tag);
    return true;
  } catch {
    return false;
  }
}

export function repairLanguage(target: { language: string }): void {
  if (isLanguageTag(target.language)) return;
  const repaired = target.language.split(/[@.]/)[0] ?? "";
  Object.defineProperty(target, "language", { value: isLanguageTag(repaired) ? repaired : "en-US", configurable: true });
}

if (typeof navigator !== "undefined") repairLanguage(navigator);
