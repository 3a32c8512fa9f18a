#[derive(Debug, Default)]
pub struct State;
pub fn render_line(_: &mut State, b: &[u8]) -> String {
    String::from_utf8_lossy(b)
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace('\u{1b}', "")
}
/// Text without control characters.
pub fn strip(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
        .collect()
}
