// Prints what java.time makes of date patterns: the yardstick for src/encode/pattern.rs.
//
//   java tests/golden/patterns/Vectors.java > tests/golden/patterns/vectors.tsv        (Java 17)
//
// First line: the moments, as milliseconds since the epoch. Each further line: a pattern, then its text at each
// moment; or a pattern and `refused`. Columns are separated by tabs. Locale en_US, zone UTC.

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.StringJoiner;

class Vectors {
    static final List<Instant> MOMENTS = List.of(
        Instant.parse("1970-01-01T00:00:00Z"),
        Instant.parse("1999-12-31T23:59:59.999Z"), // the last of a century, in a week that ends in the next year
        Instant.parse("2000-01-01T00:00:00.001Z"),
        Instant.parse("2000-02-29T05:59:59.100Z"),
        Instant.parse("2008-12-29T06:00:00Z"),
        Instant.parse("2010-01-03T12:00:00Z"), // a Sunday: week 53 by ISO, week 2 in the US
        Instant.parse("2011-01-01T12:00:00.020Z"),
        Instant.parse("2012-12-30T12:01:00Z"),
        Instant.parse("2016-12-31T17:59:59Z"), // day 366
        Instant.parse("2018-08-27T10:30:00Z"),
        Instant.parse("2020-03-01T18:00:00.123Z"),
        Instant.parse("2021-04-09T20:59:59Z"),
        Instant.parse("2021-05-10T21:00:00Z"),
        Instant.parse("2022-06-06T00:00:01Z"),
        Instant.parse("2023-07-31T01:02:03.004Z"),
        Instant.parse("2024-10-08T09:08:07.006Z"),
        Instant.parse("2024-11-15T13:00:00Z"),
        Instant.parse("2026-09-30T23:59:59.999Z"), // the longest names and numbers
        Instant.parse("2029-12-31T12:00:30Z"),
        Instant.parse("2100-02-28T11:59:59.999Z"),
        Instant.parse("9999-12-30T00:00:00Z"));

    static List<String> patterns() {
        List<String> patterns = new ArrayList<>();
        for (char letter = 'A'; letter <= 'z'; letter++) {
            if (!Character.isLetter(letter)) continue;
            for (int count : new int[] {1, 2, 3, 4, 5, 6, 9, 10, 19, 20}) patterns.add(String.valueOf(letter).repeat(count));
        }
        patterns.addAll(List.of(
            "yyyy/MM/dd/HH/", "yyyy'/M'MM", "yyyy'T'HH", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "'year='yyyy'/month='MM'/day='dd'/'",
            "'it''s' ''yyyy''", "''", "''''", "'''a'''", "yyyyMMddHHmmssSSS", "EEE, d MMM yyyy HH:mm:ss zzz", "h a", "hh:mm a", "K:mm a",
            "YYYY-'W'ww-e", "[yyyy][-MM[-dd]]", "[yyyy", "yyyy]", "yyyy'", "'yyyy", "yyyy''MM", "{yyyy", "yyyy#", "yyyy}",
            "dd.MM.yyyy", "1 2 3 (x)", "=?&+~", "\u00e4yyyy\u20ac", "D", "DDDyyyy", "QQQ yyyy", "LLLL cccc", "ppH", "VVVV"));
        return patterns;
    }

    static String row(String pattern) {
        try {
            DateTimeFormatter formatter = DateTimeFormatter.ofPattern(pattern, Locale.US).withZone(ZoneId.of("UTC"));
            StringJoiner row = new StringJoiner("\t").add(pattern);
            for (Instant moment : MOMENTS) row.add(formatter.format(moment));
            return row.toString();
        } catch (RuntimeException refusal) {
            return pattern + "\trefused";
        }
    }

    public static void main(String[] arguments) {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        StringJoiner moments = new StringJoiner("\t");
        for (Instant moment : MOMENTS) moments.add(String.valueOf(moment.toEpochMilli()));
        out.println(moments);
        for (String pattern : patterns()) out.println(row(pattern));
    }
}
