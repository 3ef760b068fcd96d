// Who is signed in. `gateway dev` gives tokens for alice and bob to anybody on this machine; a real application asks its own
// backend, which looks at its session.

import { Parley } from "parley-client";
import { indexedDb } from "parley-client/storage";

async function fetchToken(user: string): Promise<string> {
  const given = new URLSearchParams(location.search).get("token");
  if (given) return given;
  const users: { userId: string; token: string }[] = await (await fetch("/demo/users")).json();
  const found = users.find(({ userId }) => userId === user);
  if (!found) throw new Error(`The gateway has no token for "${user}".`);
  return found.token;
}

export async function signIn(): Promise<Parley> {
  const user = new URLSearchParams(location.search).get("user");
  if (!user) throw new Error("The address names no user.");
  return new Parley(location.origin, {
    token: () => fetchToken(user),
    storage: indexedDb(`parley-${user}`),
    userId: user,
  });
}
