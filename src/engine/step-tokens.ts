/**
 * Tokens of a step behind `context` tokens: the indexer's scores are a table of a row a token and a column an entry of so many tokens,
 * which is kept to 64 MB. How the input is cut changes no bit of the result.
 */
export function stepTokensAt(context: number, tokensPerScore: number): number {
  return Math.max(16, Math.floor((16 << 20) / (context / tokensPerScore)));
}
