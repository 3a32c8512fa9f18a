//! Figures as Markdown.

use std::{fmt, fs, io, path::Path};

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit(pub &'static str);

/// Milliseconds.
pub const MS: Unit = Unit("ms");
/// Mebibytes.
pub const MIB: Unit = Unit("MiB");
/// A number of something.
pub const COUNT: Unit = Unit("");

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

/// Which of its figures a row's goal is about.
#[derive(Debug, Clone, Copy)]
enum Judged {
    Median,
    /// This part of all figures is at most so.
    Part(f64),
    /// The median of its ratios to what stands beside it.
    Ratio,
}

/// One line of the table.
pub struct Row {
    what: String,
    figures: Vec<f64>,
    unit: Unit,
    beside: Option<(&'static str, Vec<f64>)>,
    goal: Option<(Judged, Goal)>,
    remark: Option<String>,
}

impl Row {
    pub fn new(what: impl Into<String>, unit: Unit, figures: Vec<f64>) -> Self {
        Self {
            what: what.into(),
            figures,
            unit,
            beside: None,
            goal: None,
            remark: None,
        }
    }

    /// What was measured in turn with it, once for each of its own figures; the ratio is figure to this.
    pub fn beside(mut self, what: &'static str, figures: Vec<f64>) -> Self {
        self.beside = Some((what, figures));
        self
    }

    /// What the median should be.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some((Judged::Median, goal));
        self
    }

    /// What this part of the figures should keep to.
    pub fn goal_of_part(mut self, part: f64, goal: Goal) -> Self {
        self.goal = Some((Judged::Part(part), goal));
        self
    }

    /// What the ratio should be.
    pub fn goal_of_ratio(mut self, goal: Goal) -> Self {
        self.goal = Some((Judged::Ratio, goal));
        self
    }

    /// What else is to be known of it.
    pub fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    fn ratios(&self) -> Vec<f64> {
        let beside = self.beside.iter().flat_map(|(_, figures)| figures);
        self.figures
            .iter()
            .zip(beside)
            .map(|(own, other)| own / other)
            .collect()
    }

    fn cells(&self) -> [String; 7] {
        let unit = |figure: f64| match self.unit {
            COUNT => number(figure),
            Unit(unit) => format!("{} {unit}", number(figure)),
        };
        let beside = self.beside.as_ref().map(|(what, figures)| {
            let ratio = percentile(&self.ratios(), 0.5);
            format!("{what}: {}; ratio {}", unit(percentile(figures, 0.5)), number(ratio))
        });
        let (goal, verdict) = match self.goal {
            None => (String::new(), ""),
            Some((judged, goal)) => {
                let (name, figure, shown): (_, f64, &dyn Fn(f64) -> String) = match judged {
                    Judged::Median => (String::new(), percentile(&self.figures, 0.5), &unit),
                    Judged::Part(part) => (format!("p{:.0} ", part * 100.0), percentile(&self.figures, part), &unit),
                    Judged::Ratio => ("ratio ".to_owned(), percentile(&self.ratios(), 0.5), &number),
                };
                let bound = match goal {
                    Goal::AtMost(most) => format!("≤ {}", shown(most)),
                    Goal::AtLeast(least) => format!("≥ {}", shown(least)),
                };
                let verdict = if goal.met(figure) { "ok" } else { "missed" };
                (format!("{name}{bound}"), verdict)
            }
        };
        let p95 = match self.goal {
            Some((Judged::Part(part), _)) if (part - 0.95).abs() > f64::EPSILON => format!(
                "{}, p{:.0} {}",
                unit(percentile(&self.figures, 0.95)),
                part * 100.0,
                unit(percentile(&self.figures, part))
            ),
            _ if self.figures.len() > 1 => unit(percentile(&self.figures, 0.95)),
            _ => String::new(),
        };
        let aside: Vec<String> = beside.into_iter().chain(self.remark.clone()).collect();
        [
            self.what.clone(),
            unit(percentile(&self.figures, 0.5)),
            p95,
            self.figures.len().to_string(),
            aside.join("; "),
            goal,
            verdict.to_owned(),
        ]
    }

    fn line(&self) -> String {
        format!("| {} |", self.cells().join(" | "))
    }
}

/// Three digits that count, or all before the point.
fn number(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// The figure that this part of all is at most.
pub fn percentile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// All rows, in the order in which they were measured.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    /// The most that others used of a processor before or behind a part.
    pub others: f64,
}

const HEAD: &str = "\
| what | median | p95 | n | beside it, in the same run | goal | |
|---|---|---|---|---|---|---|
";

impl Table {
    pub fn push(&mut self, row: Row) {
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Takes back what was added since it had so many rows.
    pub fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows);
    }

    /// Exchanges the lines of a document that have a row's name, and adds the other rows below the table's last line.
    pub fn write_into(&self, file: &Path) -> io::Result<()> {
        let text = fs::read_to_string(file)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let Some(head) = lines
            .iter()
            .position(|line| HEAD.starts_with(line.as_str()) && !line.is_empty())
        else {
            return Err(io::Error::other(format!("{} has no such table", file.display())));
        };
        for row in &self.rows {
            let name = format!("| {} |", row.what);
            let table = lines[head..].iter().take_while(|line| line.starts_with('|'));
            let end = head + table.count();
            match lines[head..end].iter().position(|line| line.starts_with(&name)) {
                Some(at) => lines[head + at] = row.line(),
                None => lines.insert(end, row.line()),
            }
        }
        fs::write(file, lines.join("\n") + "\n")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        for row in &self.rows {
            writeln!(f, "{}", row.line())?;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        writeln!(
            f,
            "\n{processors} processors; before and behind each part others used at most {:.0} % of one.",
            self.others * 100.0
        )
    }
}
