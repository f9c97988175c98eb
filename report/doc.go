// Package report writes reports to authorities about media that the law demands to
// report: an NCMEC CyberTipline report in XML, and the same in plain words for other hotlines.
//
// A report claims what is known and nothing else. It never holds media. That a person looked at a
// file is claimed only if an admin has said so, by name. Writing a report and sending it are two
// things; between them stands a person who reads it.
package report
