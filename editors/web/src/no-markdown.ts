// Stands in for `marked` in the bundle. The page shows no documentation: this saves 39 KB, and a way to write HTML.
export class Marked {
  parse(text: string): string {
    return text.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);
  }
}
