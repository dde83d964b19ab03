package bftws.judge;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.w3c.dom.Element;

/**
 * Judges a recording (a directory with keys.json and one file per HTTP body): every SOAP envelope
 * that bears a wsse:Security must verify in a stock WSS4J and be valid by the schemas, and after
 * one flipped bit in Body, To or Sequence it must not verify.
 *
 * <p>Usage: Judge RECORDING REPOSITORY [--flips N]: N envelopes of each action are bent. The last line of the output is the summary; the
 * exit code is 0 if nothing failed and something was judged, else 1.
 */
public final class Judge {
    private static final String BFT = "urn:bft-ws:1";

    private final Verifier verifier;
    private final Validator validator;
    private final int flips;
    private final Map<String, Integer> kinds = new TreeMap<>();
    private final List<String> failures = new ArrayList<>();
    private int files;
    private int verified;
    private int signatures;
    private int plain;
    private int flipped;
    private int forwarded;

    private Judge(Verifier verifier, Validator validator, int flips) {
        this.verifier = verifier;
        this.validator = validator;
        this.flips = flips;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 2) {
            System.err.println("usage: Judge RECORDING REPOSITORY [--flips N]");
            System.exit(2);
        }
        int flips = 20;
        if (arguments.length == 4 && arguments[2].equals("--flips")) {
            flips = Integer.parseInt(arguments[3]);
        }
        Path recording = Path.of(arguments[0]);
        Keys keys = Keys.read(recording.resolve("keys.json"));
        Judge judge = new Judge(new Verifier(keys), new Validator(Path.of(arguments[1])), flips);
        try (Stream<Path> all = Files.list(recording)) {
            for (Path file : all.sorted().toList()) {
                judge.file(file);
            }
        }
        System.exit(judge.summary());
    }

    private void file(Path file) throws IOException {
        if (!Files.isRegularFile(file) || file.getFileName().toString().equals("keys.json")) {
            return;
        }
        byte[] octets = Files.readAllBytes(file);
        if (octets.length == 0 || octets[0] != '<') {
            return; // A 202 has no body; an operator's page is no XML.
        }
        files++;
        String name = file.getFileName().toString();
        Envelope envelope;
        try {
            envelope = Envelope.parse(octets);
        } catch (Exception e) {
            fail(name, "not an envelope: " + e.getMessage());
            return;
        }
        if (envelope.security() == null) {
            plain++; // A user's, a fault to a stranger, or a WSDL: not ours to judge.
            if (envelope.kind().startsWith(BFT + "/")) {
                fail(name, "not signed");
            }
            return;
        }
        kinds.merge(envelope.kind(), 1, Integer::sum);
        try {
            signatures += verifier.verify(envelope);
            verified++;
        } catch (Exception e) {
            fail(name, "does not verify: " + e);
            return;
        }
        for (String fault : validator.faults(envelope)) {
            fail(name, "not valid: " + fault);
        }
        try {
            forwarded += forwarded(envelope);
        } catch (Exception e) {
            fail(name, "a forwarded bundle does not verify: " + e);
        }
        if (kinds.get(envelope.kind()) <= flips) {
            flips(name, octets);
        }
    }

    /** Bundles forwarded from replica to replica: each with its client's signature, as octets. */
    private int forwarded(Envelope envelope) throws Exception {
        Element agreement = Envelope.child(envelope.body(), BFT, "Agreement");
        if (agreement == null) {
            return 0;
        }
        int count = 0;
        for (Element body : Envelope.children(agreement)) {
            if (!body.getLocalName().equals("Body")) {
                continue;
            }
            ByteArrayOutputStream octets = new ByteArrayOutputStream();
            octets.writeBytes(text("<e:Envelope xmlns:e='" + Envelope.SOAP12 + "'><e:Header>"));
            octets.writeBytes(text("<w:Security xmlns:w='" + Envelope.WSSE + "'>"));
            octets.writeBytes(binary(Envelope.child(body, BFT, "Signature")));
            octets.writeBytes(text("</w:Security></e:Header>"));
            octets.writeBytes(binary(Envelope.child(body, BFT, "Octets")));
            octets.writeBytes(text("</e:Envelope>"));
            if (verifier.results(Envelope.parse(octets.toByteArray())).size() != 1) {
                throw new IllegalStateException("not one signature");
            }
            count++;
        }
        return count;
    }

    private static byte[] text(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] binary(Element element) {
        return Base64.getDecoder().decode(element.getTextContent().trim());
    }

    private void flips(String name, byte[] octets) {
        for (String part : List.of("Body", "To", "Sequence", "Action")) {
            byte[] bent = Flip.inside(octets, part);
            if (bent == null) {
                continue;
            }
            flipped++;
            try {
                verifier.verify(Envelope.parse(bent));
                fail(name, "verifies with a flipped bit in " + part);
            } catch (Exception e) {
                // As it must be.
            }
        }
    }

    private void fail(String name, String why) {
        failures.add(name + ": " + why);
        if (failures.size() <= 20) {
            System.out.println("FAILED " + name + ": " + why);
        }
    }

    private int summary() {
        kinds.forEach((kind, count) -> System.out.printf("%8d %s%n", count, kind));
        boolean good = failures.isEmpty() && verified > 0;
        System.out.printf(
                "%s wss4j=%s files=%d verified=%d signatures=%d forwarded=%d unsigned=%d"
                        + " flips=%d failures=%d%n",
                good ? "passed" : "FAILED", verifier.version(), files, verified, signatures,
                forwarded, plain, flipped, failures.size());
        return good ? 0 : 1;
    }

    /** One bit of text flipped inside the first element of a local name, the octets well-formed. */
    static final class Flip {
        private Flip() {}

        static byte[] inside(byte[] octets, String local) {
            String text = new String(octets, StandardCharsets.ISO_8859_1);
            Matcher start =
                    Pattern.compile("<(?:[\\w.-]+:)?" + local + "[\\s>]").matcher(text);
            if (!start.find()) {
                return null;
            }
            int end = text.indexOf(local + ">", start.end());
            // The first digit or letter of some text in it: still well-formed with its lowest bit
            // turned.
            Matcher content =
                    Pattern.compile(">([^<&]*?)([A-Ya-y0-8])").matcher(text);
            if (end < 0 || !content.find(start.end() - 1) || content.start(2) >= end) {
                return null;
            }
            byte[] bent = octets.clone();
            bent[content.start(2)] ^= 1;
            return bent;
        }
    }
}
