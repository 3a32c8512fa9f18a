#[derive(Debug,Default)] pub struct State;
pub fn render_line(_:&mut State,b:&[u8])->String{String::from_utf8_lossy(b).replace("&","&amp;").replace("<","&lt;").replace('\u{1b}',"")}