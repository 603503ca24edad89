// Where the program `diffcode` is. Imports no vscode, so that it can be tried without one.
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, isAbsolute, join, resolve } from 'node:path';

const WINDOWS = process.platform === 'win32';
const PROGRAM = WINDOWS ? 'diffcode.exe' : 'diffcode';
const BIN = WINDOWS ? 'Scripts' : 'bin';
const ENVIRONMENTS = ['.venv', 'venv', 'env'];

/** What the search may look at. */
export interface Surroundings {
  readonly setting: string; // diffcode.path
  readonly folders: readonly string[]; // of the workspace
  readonly home: string;
  readonly environment: NodeJS.ProcessEnv;
}

/** The program's path. Where the setting names one there is no other. */
export function findProgram(around: Surroundings): string | undefined {
  const wanted = around.setting.trim();
  return (wanted ? named(wanted, around) : usual(around)).find(isProgram);
}

function named(setting: string, around: Surroundings): string[] {
  const path = setting.replace(/^~(?=$|[\\/])/, () => around.home);
  if (path.includes('${workspaceFolder}')) {
    return around.folders.map((folder) => path.replaceAll('${workspaceFolder}', () => folder));
  }
  if (isAbsolute(path)) return [path];
  return /[\\/]/.test(path) ? around.folders.map((folder) => resolve(folder, path)) : onPath(path, around);
}

function usual(around: Surroundings): string[] {
  const environments = around.folders.flatMap((folder) => ENVIRONMENTS.map((name) => join(folder, name)));
  const active = around.environment['VIRTUAL_ENV'];
  if (active) environments.push(active);
  const inThem = environments.map((folder) => join(folder, BIN, PROGRAM));
  return [...inThem, ...onPath(PROGRAM, around), join(around.home, '.local', 'bin', PROGRAM)];
}

function onPath(name: string, around: Surroundings): string[] {
  const folders = (around.environment['PATH'] ?? '').split(delimiter).filter(isAbsolute);
  return folders.map((folder) => join(folder, name));
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
