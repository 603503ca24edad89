// What the page opens with, in each language it knows.
import { javascript } from "@codemirror/lang-javascript";
import { python } from "@codemirror/lang-python";
import { indentUnit } from "@codemirror/language";
import type { Extension } from "@codemirror/state";

export interface Sample {
  name: string;
  uri: string;
  language: string;
  mode: Extension;
  text: string;
}

const PYTHON = `"""Temperatures of a week. Write three question marks where code is missing, then press "Fill holes"."""


def mean(values):
    """The arithmetic mean."""
    return ???


def to_fahrenheit(celsius):
    """Degrees Celsius in degrees Fahrenheit."""
    ???


def warmest(days):
    """The (name, degrees) pair with the most degrees."""
    return ???


week = [("Mon", 12.5), ("Tue", 14.0), ("Wed", 11.5), ("Thu", 16.0)]
print(warmest(week), to_fahrenheit(mean([degrees for _, degrees in week])))
`;

const JAVASCRIPT = `// Temperatures of a week. Write three question marks where code is missing, then press "Fill holes".

/** The arithmetic mean. */
function mean(values) {
  return ???;
}

/** Degrees Celsius in degrees Fahrenheit. */
function toFahrenheit(celsius) {
  ???
}

/** The [name, degrees] pair with the most degrees. */
function warmest(days) {
  return ???;
}

const week = [["Mon", 12.5], ["Tue", 14.0], ["Wed", 11.5], ["Thu", 16.0]];
console.log(warmest(week), toFahrenheit(mean(week.map(([, degrees]) => degrees))));
`;

export const SAMPLES: readonly Sample[] = [
  {
    name: "Python",
    uri: "untitled:/week.py",
    language: "python",
    mode: [python(), indentUnit.of("    ")],
    text: PYTHON,
  },
  {
    name: "JavaScript",
    uri: "untitled:/week.js",
    language: "javascript",
    mode: [javascript(), indentUnit.of("  ")],
    text: JAVASCRIPT,
  },
];
