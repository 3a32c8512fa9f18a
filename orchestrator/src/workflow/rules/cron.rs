//! Five fields of POSIX cron, as GitHub takes them: numbers, names of months and days, ranges, lists and steps.

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Words for the numbers from `min` on.
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day of the month", 1, 31, &[]),
    field("month", 1, 12, MONTHS),
    field("day of the week", 0, 7, DAYS),
];

const fn field(name: &'static str, min: u32, max: u32, words: &'static [&'static str]) -> Field {
    Field { name, min, max, words }
}

/// What is wrong with a cron text, as a sentence without its end.
pub(super) fn wrong(text: &str) -> Option<String> {
    if text.trim_start().starts_with('@') {
        return Some("names such as `@daily` are no part of it: write five fields, `0 0 * * *`".into());
    }
    let parts: Vec<&str> = text.split_whitespace().take(8).collect();
    if parts.len() != FIELDS.len() {
        return Some(format!(
            "it has {} fields and needs five: minute, hour, day of the month, month, day of the week",
            match parts.len() {
                8.. => "too many".to_owned(),
                few => few.to_string(),
            }
        ));
    }
    parts.iter().zip(&FIELDS).find_map(|(part, field)| {
        let wrong = part.split(',').find(|item| !field.takes(item))?;
        Some(format!(
            "`{}` is no {}, which goes from {} to {}",
            super::super::walk::shown(wrong),
            field.name,
            field.min,
            field.max
        ))
    })
}

impl Field {
    fn takes(&self, item: &str) -> bool {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let step_fits = step.is_none_or(|step| digits(step).is_some_and(|n| n > 0 && n <= self.max));
        let range_fits = match range.split_once('-') {
            _ if range == "*" => true,
            Some((from, to)) => matches!((self.number(from), self.number(to)), (Some(from), Some(to)) if from <= to),
            None => self.number(range).is_some(),
        };
        step_fits && range_fits
    }

    fn number(&self, text: &str) -> Option<u32> {
        let word = self.words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let number = match word {
            Some(at) => self.min + u32::try_from(at).ok()?,
            None => digits(text)?,
        };
        (self.min..=self.max).contains(&number).then_some(number)
    }
}

fn digits(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::wrong;

    #[test]
    fn five_fields_of_posix_cron() {
        for text in [
            "0 0 * * *",
            "*/15 * * * *",
            "30 5,17 * * 1-5",
            "20/15 * * * *",
            "0 0 1 JAN sun",
            "0 0 1-7 */2 7",
            "  0  4 * * MON-fri ",
        ] {
            assert_eq!(wrong(text), None, "{text}");
        }
        for (text, what) in [
            ("", "it has 0 fields"),
            ("0 0 * *", "it has 4 fields"),
            ("0 0 0 * * *", "it has 6 fields"),
            ("@daily", "`@daily`"),
            ("60 * * * *", "`60` is no minute, which goes from 0 to 59"),
            ("0 24 * * *", "no hour"),
            ("0 0 0 * *", "no day of the month"),
            ("0 0 * 13 *", "no month"),
            ("0 0 * * 8", "no day of the week"),
            ("0 0 * * 5-1", "no day of the week"),
            ("*/0 * * * *", "no minute"),
            ("1, * * * *", "`` is no minute"),
            ("a * * * *", "`a` is no minute"),
            ("0 0 L * *", "`L` is no day of the month"),
        ] {
            let said = wrong(text).unwrap_or_default();
            assert!(said.contains(what), "{text}: {said}");
        }
    }
}
