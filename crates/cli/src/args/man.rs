//! Manual pages, from the same definitions as `--help`: one for the program, one for each command.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

/// Every page with its file name; the program's own comes first.
pub(crate) fn pages(mut root: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    root.build();
    let mut pages = vec![("convox.1".to_owned(), page(&root, GENERAL)?)];
    below(&root, "convox", &mut pages)?;
    Ok(pages)
}

fn below(command: &Command, prefix: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        let name = format!("{prefix}-{}", child.get_name());
        pages.push((format!("{name}.1"), page(child, SEE)?));
        below(child, &name, pages)?;
    }
    Ok(())
}

fn page(command: &Command, end: &str) -> io::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command.clone()).title(name).manual("Convox").source(format!("convox {}", crate::VERSION));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    // Examples keep their lines, which the library's own section would fill into a paragraph.
    if let Some(examples) = command.get_after_help() {
        writeln!(text, ".SH EXAMPLES\n.nf")?;
        for line in examples.to_string().lines().skip(1) {
            writeln!(text, "{}", escaped(line.trim()))?;
        }
        writeln!(text, ".fi")?;
    }
    text.write_all(end.as_bytes())?;
    Ok(text)
}

/// A line that means nothing to roff but its characters.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

const SEE: &str = ".SH \"SEE ALSO\"\n\\fBconvox\\fR(1) has the exit codes, the environment and the files of every command.\n";

const GENERAL: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
done; also when whoever read standard output closed it
.TP
\fB1\fR
failed, as told on standard error
.TP
\fB2\fR
\fBdoctor\fR found nothing that keeps commands from working, but something to look after
.TP
\fB130\fR
Ctrl\-C at a question
.TP
\fBof the remote command\fR
from \fBexec\fR, \fBrun\fR and \fBtest\fR; 128 + N for a program that signal N ended, or when signal N ended \fBconvox\fR itself; 255 when the stream ended without saying how the command did
.SH ENVIRONMENT
.TP
\fBCONVOX_CONFIG\fR
the directory of the settings
.TP
\fBCONVOX_HOST\fR, \fBCONVOX_PASSWORD\fR, \fBCONVOX_RACK\fR, \fBRACK\fR, \fBRACK_URL\fR
host, key and Rack of one command, above what is saved
.TP
\fBCONVOX_TOKEN\fR
the key, for \fBlogin\fR
.TP
\fBCONVOX_STRICT_TLS\fR=\fItrue\fR
trust no certificate on first use
.TP
\fBEDITOR\fR, \fBNO_COLOR\fR, \fBHTTPS_PROXY\fR, \fBNO_PROXY\fR, \fBSSL_CERT_FILE\fR, \fBSSL_CERT_DIR\fR
as everywhere
.SH FILES
.TP
\fI~/.convox/\fR, \fI$XDG_CONFIG_HOME/convox/\fR
who is logged in where, and which Rack is selected
.TP
\fI./.convox/app\fR, \fI./.convox/rack\fR
the app and the Rack of a project
"#;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let pages = pages(super::super::Cli::command()).unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("there is no {name}"));
            String::from_utf8(page.1.clone()).unwrap()
        };
        assert!(text("convox.1").contains(".SH \"EXIT STATUS\""));
        let rotate = text("convox-rack-access-key-rotate.1");
        assert!(rotate.contains("convox rack access key rotate\n") && rotate.contains("rotate access key"), "{rotate}");
        assert!(text("convox-exec.1").contains("\n.nf\nconvox exec web\\-1a2b3c bash \\-a shop\n"), "{}", text("convox-exec.1"));
        for (name, page) in &pages {
            let page = String::from_utf8_lossy(page);
            let unknown = page.lines().find(|line| {
                line.starts_with(['.', '\''])
                    && ![".TH", ".SH", ".TP", ".nf", ".fi", ".ie", ".el", ".br", ".RS", ".RE", ".PP", ".IP"]
                        .contains(&line.get(..3).unwrap_or_default())
            });
            assert_eq!(unknown, None, "{name} has a line that roff would take for a request");
        }
    }
}
