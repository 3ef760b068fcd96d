export const PACKAGE: string;
export const ENTRIES: string[];
