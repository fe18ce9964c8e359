import { openSafetensors } from "../../src/format/safetensors.ts";
import { testHostileFiles } from "./hostile-cases.ts";

testHostileFiles("safetensors", openSafetensors, /^$/);
