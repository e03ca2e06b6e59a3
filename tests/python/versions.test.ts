import { describe, expect, it } from 'vitest';

import { fedmlVersions } from '../../coordinator/demo/fedml-environment.ts';
import { versionsOf } from './versions.ts';

describe('the versions that are asked for', () => {
  it('are those that were named', () => {
    expect(versionsOf([...fedmlVersions].reverse())).toEqual(fedmlVersions);
    expect(versionsOf(['0.8.50'])).toEqual(['0.8.50']);
  });

  it.each([[['0.9.7']], [['0.9.6', 'latest']], [[]]])('%j is refused: nothing would be tested', (named) => {
    expect(() => versionsOf(named)).toThrow('is tested with 0.9.6 and 0.8.50');
  });
});
