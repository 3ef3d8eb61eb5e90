/** Shell scripts that are built into the program. */
declare module "*.sh" {
  const text: string;
  export default text;
}
