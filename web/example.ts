// What a gateway's author does with the types; `npm run check` compiles it.
import type { components, operations, paths } from "./api";

type Confirm = paths["/api/v1/public/auth/confirm-email-code"]["post"];
type Game = operations["game_get"]["responses"]["200"]["content"]["application/json"];

export const body: Confirm["requestBody"]["content"]["application/json"] = {
  challenge_id: "0197f3a2-5b1c-7d20-9e46-3f1a2b4c5d6e",
  code: "804713",
  client_public_key: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
  time_zone: "Europe/Berlin",
};

export function title(game: Game): string {
  return `${game.game_name}, turn ${game.current_turn}`;
}

export function code(error: components["schemas"]["Error"]): string {
  return error.error.code;
}

// @ts-expect-error - a code is a text.
export const wrong: typeof body = { ...body, code: 804713 };
