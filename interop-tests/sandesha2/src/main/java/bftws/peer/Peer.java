package bftws.peer;

import com.google.gson.GsonBuilder;
import java.io.PrintStream;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.axis2.context.ConfigurationContext;
import org.apache.axis2.context.ConfigurationContextFactory;

/**
 * A stock Sandesha2 client of the counter service: Peer REPOSITORY URL JOB... does each job in turn
 * and prints one line of JSON about it: what it was, the values that came back, and what the client
 * itself reports of its sequence at the end.
 */
public final class Peer {
    private Peer() {}

    public static void main(String[] arguments) throws Exception {
        // Axis2 writes to stdout where it likes; ours are the only lines there.
        PrintStream out = System.out;
        System.setOut(System.err);
        ConfigurationContext context =
            ConfigurationContextFactory.createConfigurationContextFromFileSystem(arguments[0], null);
        var json = new GsonBuilder().disableHtmlEscaping().create();
        for (int i = 2; i < arguments.length; i++) {
            Job job = Job.read(arguments[i]);
            Map<String, Object> report = new LinkedHashMap<>();
            report.put("job", job.text());
            try {
                run(context, arguments[1], job, report);
            } catch (Exception error) {
                report.put("error", error.toString());
            }
            out.println(json.toJson(report));
            out.flush();
        }
        // Sandesha2 leaves threads behind that end by themselves after minutes.
        System.exit(0);
    }

    private static void run(
        ConfigurationContext context, String url, Job job, Map<String, Object> report)
        throws Exception {
        if (job.is("call", "keep")) {
            try (Parcel parcel = new Parcel(context, url, job)) {
                parcel.run(report);
            }
            return;
        }
        try (Talk talk = new Talk(context, url, job)) {
            talk.run(report);
        }
    }
}
