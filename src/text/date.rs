//! `strftime_now` for chat templates: the UTC date in Python's format language.

use std::fmt::Write;

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment split into its UTC calendar fields.
struct Moment {
    year: i64,
    /// 0 to 11.
    month: usize,
    /// 1 to 31.
    day: i64,
    /// 1 to 366.
    day_of_year: i64,
    weekday: &'static str,
    /// Seconds since midnight.
    second: i64,
}

/// Formats `unix_seconds` with the directives of Python's `strftime` that concern date and time of day, `-` for no
/// padding included; `None` for a directive that is not known.
pub(super) fn strftime(format: &str, unix_seconds: i64) -> Option<String> {
    let moment = Moment::new(unix_seconds);
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next()? {
            '-' => moment.write(&mut out, chars.next()?, false)?,
            directive => moment.write(&mut out, directive, true)?,
        }
    }
    Some(out)
}

impl Moment {
    fn new(unix_seconds: i64) -> Self {
        let (days, second) = (unix_seconds.div_euclid(86_400), unix_seconds.rem_euclid(86_400));
        let weekday = DAYS[days.rem_euclid(7) as usize];
        let (mut year, mut left) = (1970, days);
        while left < 0 || left >= days_in_year(year) {
            // Whole 400-year cycles at once keep this short for any clock.
            let cycles = left.div_euclid(146_097);
            if cycles != 0 {
                (year, left) = (year + 400 * cycles, left - 146_097 * cycles);
            } else {
                (year, left) = (year + 1, left - days_in_year(year));
            }
        }
        let day_of_year = left + 1;
        let mut month = 0;
        while left >= days_in_month(year, month) {
            left -= days_in_month(year, month);
            month += 1;
        }
        Self { year, month, day: left + 1, day_of_year, weekday, second }
    }

    fn write(&self, out: &mut String, directive: char, padded: bool) -> Option<()> {
        let hour = self.second / 3600;
        let month_name = MONTHS[self.month];
        let number = |out: &mut String, value: i64, width: usize| {
            let width = if padded { width } else { 0 };
            write!(out, "{value:0width$}")
        };
        let written = match directive {
            'Y' => number(out, self.year, 4),
            'y' => number(out, self.year.rem_euclid(100), 2),
            'm' => number(out, self.month as i64 + 1, 2),
            'd' => number(out, self.day, 2),
            'e' => write!(out, "{:>width$}", self.day, width = if padded { 2 } else { 0 }),
            'j' => number(out, self.day_of_year, 3),
            'H' => number(out, hour, 2),
            'I' => number(out, (hour + 11) % 12 + 1, 2),
            'M' => number(out, self.second / 60 % 60, 2),
            'S' => number(out, self.second % 60, 2),
            'B' => out.write_str(month_name),
            'b' | 'h' => out.write_str(&month_name[..3]),
            'A' => out.write_str(self.weekday),
            'a' => out.write_str(&self.weekday[..3]),
            'p' => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            'Z' => out.write_str("UTC"),
            'F' => return self.write_all(out, "Y-m-d"),
            'T' => return self.write_all(out, "H:M:S"),
            'D' => return self.write_all(out, "m/d/y"),
            'R' => return self.write_all(out, "H:M"),
            '%' => out.write_char('%'),
            _ => return None,
        };
        written.ok()
    }

    /// Writes each letter of `parts` as a padded directive, other characters as they are.
    fn write_all(&self, out: &mut String, parts: &str) -> Option<()> {
        for part in parts.chars() {
            if part.is_ascii_alphabetic() {
                self.write(out, part, true)?;
            } else {
                out.push(part);
            }
        }
        Some(())
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_year(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

/// Days of `month`, 0 to 11.
fn days_in_month(year: i64, month: usize) -> i64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_python() {
        // datetime.fromtimestamp(t, timezone.utc).strftime(f)
        let all = "%Y-%m-%d %H:%M:%S %d %b %B %a %A %j %I %p %y %e %-d %-m %-H %% %F %T";
        let cases = [
            (0, "1970-01-01 00:00:00 01 Jan January Thu Thursday 001 12 AM 70  1 1 1 0 % 1970-01-01 00:00:00"),
            (
                951_868_799,
                "2000-02-29 23:59:59 29 Feb February Tue Tuesday 060 11 PM 00 29 29 2 23 % 2000-02-29 23:59:59",
            ),
            (
                1_735_732_805,
                "2025-01-01 12:00:05 01 Jan January Wed Wednesday 001 12 PM 25  1 1 1 12 % 2025-01-01 12:00:05",
            ),
            (-86_401, "1969-12-30 23:59:59 30 Dec December Tue Tuesday 364 11 PM 69 30 30 12 23 % 1969-12-30 23:59:59"),
        ];
        for (second, expected) in cases {
            assert_eq!(strftime(all, second).as_deref(), Some(expected));
        }
        assert_eq!(strftime("%Y-%m-%d", 4_107_542_400).as_deref(), Some("2100-03-01"));
    }

    #[test]
    fn unknown_directives_and_extreme_clocks_are_survived() {
        assert_eq!(strftime("%Q", 0), None);
        assert_eq!(strftime("50%", 0), None);
        assert!(strftime("%Y", i64::MAX).is_some());
        assert!(strftime("%Y", i64::MIN).is_some());
    }
}
