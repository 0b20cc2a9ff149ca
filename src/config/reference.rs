//! The reference of all settings, as the README has it.

use super::row::{Described, Reload};
use super::table::ROWS;

/// Returns a table in Markdown with a row for each setting.
pub(crate) fn reference() -> String {
    let row = |row: &&dyn Described| {
        let default = if row.is_required() { "–".to_owned() } else { row.default_text() };
        let range = row
            .bounds_text()
            .map_or(" ".to_owned(), |(least, most)| format!(" {least} to {most} "));
        let reload = match row.reload() {
            Reload::Restart => "restart",
            Reload::Next => "next",
            Reload::Open => "open",
        };
        format!("| `{}` | {default} |{range}| {reload} | {} |\n", row.key(), row.help())
    };
    let head = "| setting | default | range | reload | is |\n|---|---|---|---|---|\n".to_owned();
    (head + &ROWS.iter().map(row).collect::<String>()).trim_end().to_owned()
}
