package bftws.peer;

import java.util.Map;
import java.util.TreeMap;

/** One row of what is tried, written as "rm=1.0,wsa=2005,soap=1.1,exchange=two-way,messages=5". */
record Job(String text, Map<String, String> values) {
    static Job read(String text) {
        Map<String, String> values = new TreeMap<>(Map.of(
            "rm", "1.0", "wsa", "2005", "soap", "1.1", "exchange", "two-way",
            "transport", "anonymous", "messages", "5", "wait", "60", "call", "increment"));
        for (String pair : text.split(",")) {
            String[] sides = pair.split("=", 2);
            if (sides.length != 2 || sides[0].isEmpty()) {
                throw new IllegalArgumentException("not NAME=VALUE: " + pair);
            }
            values.put(sides[0], sides[1]);
        }
        return new Job(text, values);
    }

    String get(String name) {
        return values.get(name);
    }

    boolean is(String name, String value) {
        return value.equals(values.get(name));
    }

    int number(String name) {
        return Integer.parseInt(get(name));
    }
}
